// Any two plays of a conversation side by side; the address keeps which.

const SIDES = ["left", "right"];
const FLIPS_AT_ONCE = 100;

class SideBySide {
  constructor(data) {
    this.data = data;
    this.form = find("#sides");
    this.dialog = find("#dialog");
    this.state = { talk: 0, left: 0, right: this.neighbour(), turn: null };
    this.form.elements.talk.append(...data.talks.map((talk, number) => make("option", { value: number }, visible(talk.id))));
    for (const side of SIDES) this.buildSide(side);
    this.listen();
    if (!this.followAddress()) this.show();
  }

  // What is shown at first beside the first play: another model, or else another setting, launch or repeat.
  neighbour() {
    const [first, ...others] = this.data.settings;
    const setting = others.find(([play]) => play.model !== first[0].model) ?? others[0];
    return (setting ? setting[0] : first[Math.min(1, first.length - 1)]).number;
  }

  buildSide(side) {
    const box = find(`.side.${side}`, this.form);
    const select = (name, options) => {
      const label = make("label", { class: name }, `${name} `, make("select", { name: `${side}-${name}` }, ...options));
      box.append(label);
    };
    select("setting", this.data.settings.map((setting, number) => (
      make("option", { value: number }, visible(this.data.settingOf(setting[0]))))));
    select("launch", []);
    select("repeat", []);
    box.addEventListener("change", (event) => this.choose(side, event.target.name.split("-")[1]));
  }

  // After the choice of a setting, a launch or a repeat: the play that fits it best.
  choose(side, changed) {
    const value = (name) => Number(this.form.elements[`${side}-${name}`].value);
    const setting = this.data.settings[value("setting")];
    const weight = changed === "repeat" ? { launch: 1, repeat: 2 } : { launch: 2, repeat: 1 };
    const fits = (play) => Object.keys(weight).reduce((sum, name) => sum + (play[name] === value(name) ? weight[name] : 0), 0);
    const best = setting.reduce((one, other) => (fits(other) > fits(one) ? other : one));
    this.go({ [side]: best.number });
  }

  showSide(side) {
    const play = this.data.plays[this.state[side]];
    const setting = this.data.settings[play.setting];
    this.form.elements[`${side}-setting`].value = play.setting;
    for (const name of ["launch", "repeat"]) {
      const of = name === "repeat" ? setting.filter((each) => each.launch === play.launch) : setting;
      const values = [...new Set(of.map((each) => each[name]))];
      const select = this.form.elements[`${side}-${name}`];
      select.replaceChildren(...values.map((value) => make("option", { value }, String(value))));
      select.value = play[name];
      select.parentElement.hidden = values.length < 2;
    }
  }

  listen() {
    this.form.elements.talk.addEventListener("change", (event) => this.go({ talk: Number(event.target.value), turn: null }));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    find("#swap").addEventListener("click", () => this.swap());
    for (const button of findAll("[data-step]")) button.addEventListener("click", () => this.step(Number(button.dataset.step)));
    for (const button of findAll("[data-difference]")) {
      button.addEventListener("click", () => this.stepDifference(Number(button.dataset.difference)));
    }
    find("#flips .more").addEventListener("click", () => this.listFlips(Infinity));
    window.addEventListener("hashchange", () => this.followAddress());
    const keys = {
      n: () => this.step(1), p: () => this.step(-1), j: () => this.stepDifference(1), k: () => this.stepDifference(-1), x: () => this.swap(),
    };
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, #vote")) return;
      keys[event.key]?.();
    });
  }

  swap() {
    this.go({ left: this.state.right, right: this.state.left });
  }

  step(by) {
    const talk = this.state.talk + by;
    if (talk >= 0 && talk < this.data.talks.length) this.go({ talk, turn: null });
  }

  stepDifference(by) {
    const { left, right } = this.state;
    const last = this.data.talks.length - 1;
    let here = this.state.turn ?? (by > 0 ? -Infinity : Infinity);
    for (let talk = this.state.talk; talk >= 0 && talk <= last; talk += by) {
      const turns = this.data.differing(this.data.talks[talk], left, right).map((turn) => turn.index);
      const found = by > 0 ? turns.find((turn) => turn > here) : turns.findLast((turn) => turn < here);
      if (found !== undefined) return this.go({ talk, turn: found });
      here = by > 0 ? -Infinity : Infinity;
    }
    find("#verdict").textContent = `No ${by > 0 ? "later" : "earlier"} difference.`;
  }

  go(change) {
    Object.assign(this.state, change);
    const { talk, left, right, turn } = this.state;
    const said = { talk: this.data.talks[talk].id, left, right, ...(turn === null ? {} : { turn }) };
    history.replaceState(null, "", `#${new URLSearchParams(said)}`);
    return this.show();
  }

  // Whether the address names a conversation of this page; what else it names is kept where it makes sense.
  followAddress() {
    const said = new URLSearchParams(location.hash.slice(1));
    const talk = this.data.talks.findIndex((each) => each.id === said.get("talk"));
    if (talk < 0) return false;
    const number = (name, otherwise) => (/^\d+$/.test(said.get(name) ?? "") ? Number(said.get(name)) : otherwise);
    const play = (side) => (this.data.plays[number(side, this.state[side])] ? number(side, this.state[side]) : this.state[side]);
    this.state = { talk, left: play("left"), right: play("right"), turn: number("turn", null) };
    this.show().then(() => { if (this.state.turn === null) find("#transcripts").scrollIntoView(); });
    return true;
  }

  async show() {
    const state = { ...this.state };
    const talk = this.data.talks[state.talk];
    this.form.elements.talk.value = state.talk;
    for (const button of findAll("[data-step]")) button.disabled = !this.data.talks[state.talk + Number(button.dataset.step)];
    for (const side of SIDES) this.showSide(side);
    this.listFlips(FLIPS_AT_ONCE);
    const turns = await this.data.read(talk);
    if (state.talk !== this.state.talk || state.left !== this.state.left || state.right !== this.state.right) return;
    const differing = new Set(this.data.differing(talk, state.left, state.right).map((turn) => turn.index));
    const first = Math.min(...differing);
    let firstPlace = null;
    this.dialog.classList.toggle("alone", state.left === state.right);
    this.dialog.replaceChildren(...turns.map((turn, place) => {
      const { index, checks } = talk.turns[place];
      const [left, right] = SIDES.map((side) => toldBy(turn, state[side]));
      const fork = left && right && differing.has(index)
        ? firstDifference(lines(left.said.reply ?? ""), lines(right.said.reply ?? "")) : -1;
      if (index === first && fork >= 0) firstPlace = characters(lines(left.said.reply ?? "").slice(0, fork)) + 1;
      const flipped = new Set(checks.filter(([, verdicts]) => ["10", "01"].includes(verdicts[state.left] + verdicts[state.right])).map(([check]) => check));
      return this.turn(turn, index, { left, right, fork, flipped, isFirst: index === first });
    }));
    this.tell(talk, differing, first, firstPlace);
    const wanted = state.turn === null ? null : find(`[data-turn="${state.turn}"]`, this.dialog);
    if (wanted) {
      wanted.classList.add("wanted");
      wanted.scrollIntoView({ block: "start" });
      wanted.focus({ preventScroll: true });
    }
  }

  turn(turn, index, { left, right, fork, flipped, isFirst }) {
    const asked = askedOf(turn);
    const told = { left, right };
    const sides = this.state.left === this.state.right ? ["left"] : SIDES;
    return make(
      "section", { class: "turn", "data-turn": index, tabindex: "-1", "aria-label": `Turn ${index}` },
      make("h4", {}, `Turn ${index}`, isFirst ? make("span", { class: "badge" }, "first difference") : null),
      asked === null ? null : make("p", { class: "asked", dir: "auto" }, ...visibleNodes(lines(asked))),
      turn.gold === null ? null : make("details", { class: "gold" }, make("summary", {}, "Gold reply"), replyBlock(lines(turn.gold), -1)),
      make("div", { class: "pair" }, ...sides.map((side) => answer(told[side], {
        name: this.data.nameOf(this.data.plays[this.state[side]]), side, asked, fork, flipped,
      }))),
    );
  }

  tell(talk, differing, first, place) {
    const all = plural(talk.turns.length, "turn");
    if (this.state.left === this.state.right) find("#verdict").textContent = `${all}. Choose another setting, launch or repeat to compare with.`;
    else if (!differing.size) find("#verdict").textContent = "Both said the same in every turn of this conversation.";
    else {
      const where = place === null ? "" : `, at character ${place}`;
      find("#verdict").textContent = `${differing.size} of ${all} differ; the first difference is in turn ${first}${where}.`;
    }
  }

  // Checks that passed on one side only, in all conversations of the page.
  listFlips(most) {
    const box = find("#flips");
    const { left, right } = this.state;
    const flips = this.data.flips(left, right);
    const better = (side) => flips.filter((flip) => flip.passed === side).length;
    find("summary", box).textContent = flips.length
      ? `${plural(flips.length, "flip")}: checks that passed on one side only – ${better("left")} left, ${better("right")} right`
      : "No flips: every check came out alike on both sides";
    find("ol", box).replaceChildren(...flips.slice(0, most).map(({ number, turn, check, passed }) => make("li", {}, make(
      "button", { type: "button", class: "flip", onclick: () => this.go({ talk: number, turn }) },
      `${visible(this.data.talks[number].id)} · turn ${turn} · ${visible(check)} – passed ${passed} only`,
    ))));
    const more = find(".more", box);
    more.hidden = flips.length <= most;
    more.textContent = `Show all ${flips.length}`;
  }
}
