// How one answer is shown: its text with the place where it parts from the other one, its checks, its figures.

const SHOWN_CHARACTERS = 20000; // a longer text is laid out when somebody asks for it
const BEFORE_THE_FORK = 400;
const LONGEST_WORD = 60;

// Where two texts part: an index of UTF-16 units that splits no character; -1 where they are equal.
function firstDifference(one, other) {
  if (one === other) return -1;
  const shorter = Math.min(one.length, other.length);
  let place = 0;
  while (place < shorter && one.charCodeAt(place) === other.charCodeAt(place)) place += 1;
  const low = (text) => (text.charCodeAt(place) & 0xfc00) === 0xdc00;
  return place > 0 && (low(one) || low(other)) ? place - 1 : place;
}

const characters = (text) => [...text].length;

// A reply; where it parts from the other one (`fork`, -1 for nowhere) the next word is marked.
function replyBlock(text, fork) {
  const block = make("div", { class: "reply", dir: "auto" });
  const show = (begin, end) => {
    const word = fork < 0 ? 0 : text.slice(fork, fork + LONGEST_WORD).match(/^\s*\S*/u)[0].length;
    const [split, rest] = fork < 0 ? [end, end] : [fork, Math.max(fork + word, fork)];
    block.replaceChildren();
    if (begin > 0) block.append(make("span", { class: "elided" }, `… ${begin} characters that both have …`));
    block.append(...visibleNodes(text.slice(begin, split)));
    if (fork >= 0) {
      const title = `first difference: character ${characters(text.slice(0, fork)) + 1}`;
      block.append(make("mark", { class: "fork", title }, ...(word ? visibleNodes(text.slice(split, rest)) : ["▯"])));
      block.append(...visibleNodes(text.slice(rest, end)));
    }
    if (end < text.length || begin > 0) {
      const more = begin + (text.length - end);
      block.append(make("button", { type: "button", class: "more", onclick: () => show(0, text.length) }, `Show the other ${more} characters`));
    }
  };
  const begin = fork > SHOWN_CHARACTERS ? fork - BEFORE_THE_FORK : 0;
  show(begin, Math.min(text.length, Math.max(begin + SHOWN_CHARACTERS, fork + LONGEST_WORD)));
  if (text === "") block.append(make("span", { class: "elided" }, "nothing"));
  return block;
}

function figure(value) {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function factsOf(said, [ttft, tpot, rate, e2e]) {
  const facts = [];
  if (said.completion !== null) facts.push(`${said.prompt} → ${said.completion} tokens`);
  if (said.finish !== null && said.error === null) facts.push(said.finish);
  if (ttft !== null) facts.push(`TTFT ${figure(1000 * ttft)} ms`);
  if (tpot !== null) facts.push(`TPOT ${figure(1000 * tpot)} ms`);
  if (e2e !== null) facts.push(`end to end ${figure(1000 * e2e)} ms`);
  if (rate !== null) facts.push(`${figure(rate)} tok/s`);
  return facts.join(" · ");
}

// `flipped` are the names of checks that the other side judged otherwise.
function checkList(checks, flipped) {
  if (!checks.length) return null;
  return make("ul", { class: "checks" }, ...checks.map(([check, passed, detail]) => make(
    "li", { class: passed ? "passed" : "failed" },
    make("span", { class: "sign", role: "img", "aria-label": passed ? "passed" : "failed" }, passed ? "✓" : "✗"),
    " ", ...visibleNodes(check), detail ? make("span", { class: "detail" }, " – ", ...visibleNodes(detail)) : null,
    flipped.has(check) ? make("span", { class: "badge" }, "flip") : null,
  )));
}

// What one side said to a turn; `told` is null where it did not get that far.
function answer(told, { name, side, asked, fork = -1, flipped = new Set() }) {
  const article = make("article", { class: `answer ${side}`, "aria-label": `${side}: ${name}` });
  article.append(make("h5", {}, visible(name)));
  if (told === null) {
    article.append(make("p", { class: "elided" }, "not played, or left out of this page"));
    return article;
  }
  const { said, times } = told;
  if (said.state === "not_reached") {
    article.append(make("p", { class: "elided" }, "not reached: an earlier turn failed or filled up the conversation"));
    return article;
  }
  if (said.user !== null && said.user !== asked) {
    article.append(make("p", { class: "heard", dir: "auto" }, make("span", { class: "who" }, "heard "), ...visibleNodes(lines(said.user))));
  }
  if (said.reasoning !== null) {
    article.append(make("details", { class: "reasoning" }, make("summary", {}, "Reasoning"), replyBlock(lines(said.reasoning), -1)));
  }
  if (said.reply !== null) article.append(replyBlock(lines(said.reply), fork));
  if (said.error !== null) article.append(make("p", { class: "error" }, "✗ ", ...visibleNodes(said.error)));
  const checks = checkList(said.checks, flipped);
  if (checks) article.append(checks);
  article.append(make("p", { class: "facts" }, factsOf(said, times)));
  return article;
}

// What a play said to a turn, out of what was unpacked; null where it did not get that far.
function toldBy(turn, play) {
  const entry = turn.plays[play];
  if (!entry) return null;
  const [which, ...times] = entry;
  return { said: turn.said[which], times };
}

function askedOf(turn) {
  return turn.said.find((said) => said.user !== null)?.user ?? null;
}
