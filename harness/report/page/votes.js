// Blind votes: two answers to one turn, unnamed, left and right at random. They are saved as a file.

class Votes {
  constructor(data, name) {
    this.data = data;
    this.key = `harness-votes ${name}`;
    this.name = name;
    this.form = find("#ballots");
    this.box = find("#ballot");
    this.votes = this.kept();
    this.turns = data.talks.flatMap((talk) => talk.turns.map((turn) => ({ talk, turn })));
    const options = data.settings.map((setting, number) => [String(number), data.settingOf(setting[0])]);
    for (const which of ["one", "other"]) {
      const all = which === "one" ? "any setting" : "any other";
      this.form.elements[which].append(...[["", all], ...options].map(([value, label]) => make("option", { value }, visible(label))));
    }
    this.form.addEventListener("change", () => this.next());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    find("#save").addEventListener("click", () => this.save());
    find("#reveal").addEventListener("click", () => this.reveal());
    find("#forget").addEventListener("click", () => this.forget());
    find("#vote").addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
      const button = find(`[data-key="${event.key}"]`, this.box);
      if (button) button.click();
    });
    this.next(false);
  }

  // From a file there may be no storage; then votes last until the page is closed.
  kept() {
    try { return JSON.parse(localStorage.getItem(this.key)) ?? []; } catch { return []; }
  }

  keep() {
    try { localStorage.setItem(this.key, JSON.stringify(this.votes)); return true; } catch { return false; }
  }

  // The plays that stand for election on each side.
  candidates() {
    const of = (which) => {
      const value = this.form.elements[which].value;
      return value === "" ? this.data.plays : this.data.settings[Number(value)];
    };
    return [of("one"), of("other")];
  }

  // A ballot that was not cast yet: a turn to which two settings said something different.
  draw() {
    const [ones, others] = this.candidates();
    const cast = new Set(this.votes.map((vote) => this.nameOfVote(vote)));
    const first = Math.floor(Math.random() * this.turns.length);
    for (let step = 0; step < this.turns.length; step += 1) {
      const { talk, turn } = this.turns[(first + step) % this.turns.length];
      for (const one of this.answers(turn, ones)) for (const other of this.answers(turn, others)) {
        if (one.setting === other.setting || turn.codes[one.number] === turn.codes[other.number]) continue;
        if (!cast.has(this.nameOf(talk, turn, one, other))) return { talk, turn, one, other };
      }
    }
    return null;
  }

  // Every different answer of every setting to a turn, by one of the plays that gave it; in any order.
  answers(turn, plays) {
    const given = new Map();
    for (const play of plays) {
      const code = turn.codes[play.number];
      if (code >= 0) given.set(`${play.setting} ${code}`, play);
    }
    return shuffled([...given.values()]);
  }

  // The same ballot has the same name, whichever side is which and whichever repeat gave the answers.
  nameOf(talk, turn, ...sides) {
    return JSON.stringify([talk.id, turn.index, ...sides.map((play) => `${play.setting} ${turn.codes[play.number]}`).sort()]);
  }

  nameOfVote({ conversation_id, turn_index, left, right }) {
    const talk = this.data.talks.find((each) => each.id === conversation_id);
    const turn = talk?.turns.find((each) => each.index === turn_index);
    const sides = [left, right].map((side) => this.data.plays.find((play) => JSON.stringify(this.named(play)) === JSON.stringify(side)));
    return turn && sides.every(Boolean) ? this.nameOf(talk, turn, ...sides) : null;
  }

  named(play) {
    const { run, model, sampling, concurrency, launch, repeat } = play;
    return { run_id: run, model, sampling, concurrency, launch, repeat };
  }

  async next(focus = true) {
    this.tellCount();
    const drawn = this.draw();
    this.drawn = drawn;
    if (!drawn) {
      this.box.replaceChildren(make("p", { class: "note" }, "There is no turn left on which these settings said something different."));
      return;
    }
    const { talk, turn } = drawn;
    const sides = Math.random() < 0.5 ? [drawn.one, drawn.other] : [drawn.other, drawn.one];
    const turns = await this.data.read(talk);
    if (drawn !== this.drawn) return; // another one was drawn meanwhile
    const place = talk.turns.indexOf(turn);
    const before = (play) => turns.slice(0, place).flatMap((earlier) => {
      const told = toldBy(earlier, play.number);
      return told ? [make("p", { class: "asked", dir: "auto" }, ...visibleNodes(lines(told.said.user ?? ""))), replyBlock(lines(told.said.reply ?? ""), -1)] : [];
    });
    const shown = (play, side) => {
      const { said } = toldBy(turns[place], play.number);
      return make("article", { class: `answer ${side}`, "aria-label": side }, make("h5", {}, side === "left" ? "Left" : "Right"),
        place ? make("details", { class: "before" }, make("summary", {}, plural(place, "turn") + " before"), ...before(play)) : null,
        said.reply === null ? make("p", { class: "error" }, "no answer: the turn failed") : replyBlock(lines(said.reply), -1));
    };
    const choice = (preferred, key, text) => make("button", {
      type: "button", "data-key": key, "data-preferred": preferred, onclick: () => this.cast(talk, turn, sides, preferred),
    }, text, make("kbd", {}, key));
    this.box.replaceChildren(
      make("p", { class: "asked", dir: "auto" }, ...visibleNodes(lines(askedOf(turns[place]) ?? ""))),
      make("div", { class: "pair" }, shown(sides[0], "left"), shown(sides[1], "right")),
      make("div", { class: "choices", "data-cast": this.votes.length }, choice("left", "1", "Left is better"), choice("tie", "2", "As good"), choice("right", "3", "Right is better"),
        make("button", { type: "button", "data-key": "4", class: "quiet", onclick: () => this.next() }, "Skip", make("kbd", {}, "4"))),
    );
    if (focus) this.box.focus({ preventScroll: true });
  }

  cast(talk, turn, [left, right], preferred) {
    this.votes.push({ conversation_id: talk.id, turn_index: turn.index, left: this.named(left), right: this.named(right), preferred });
    find("#count").replaceChildren();
    this.next();
  }

  tellCount() {
    const lasting = this.keep();
    find("#votes").textContent = plural(this.votes.length, "vote") + (lasting || !this.votes.length ? "" : " – this browser keeps nothing for files: save them before you close the page");
    find("#save").disabled = find("#reveal").disabled = find("#forget").disabled = !this.votes.length;
  }

  save() {
    const text = JSON.stringify({ format: 1, votes: this.votes }, null, 1) + "\n";
    const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    make("a", { href, download: `votes-${this.name}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  }

  reveal() {
    const tally = new Map();
    const play = (named) => this.data.settingOf({ ...named, run: named.run_id });
    for (const { left, right, preferred } of this.votes) {
      const [a, b] = [play(left), play(right)];
      const [one, other] = a < b ? [a, b] : [b, a];
      const entry = tally.get(`${one}\n${other}`) ?? { one, other, forOne: 0, forOther: 0, ties: 0 };
      if (preferred === "tie") entry.ties += 1;
      else if ((preferred === "left") === (one === a)) entry.forOne += 1;
      else entry.forOther += 1;
      tally.set(`${one}\n${other}`, entry);
    }
    const rows = [...tally.values()].map(({ one, other, forOne, forOther, ties }) => make("tr", {},
      ...[one, forOne, ties, forOther, other].map((value) => make("td", { class: typeof value === "number" ? "number" : false }, visible(value)))));
    find("#count").replaceChildren(make("div", { class: "scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ...["setting", "better", "as good", "better", "setting"].map((header) => make("th", { scope: "col" }, header)))),
      make("tbody", {}, ...rows))));
  }

  forget() {
    if (!confirm(`Forget ${plural(this.votes.length, "vote")}?`)) return;
    this.votes = [];
    find("#count").replaceChildren();
    this.next(false);
  }
}

function shuffled(list) {
  for (let last = list.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [list[last], list[other]] = [list[other], list[last]];
  }
  return list;
}
