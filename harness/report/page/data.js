// The transcripts lie in the page, compressed; a conversation is unpacked when it is looked at.

async function unpacked(block) {
  const bytes = Uint8Array.from(atob(block.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

const KEPT_CHUNKS = 8;

class Transcripts {
  static async open() {
    const block = find("#index");
    return block ? new Transcripts(await unpacked(block)) : null;
  }

  constructor({ plays, talks }) {
    this.plays = plays.map(([run, model, sampling, concurrency, launch, repeat], number) => (
      { number, run, model, sampling, concurrency, launch, repeat }));
    this.talks = talks.map(({ id, chunk, place, turns }) => ({
      id, chunk, place, turns: turns.map(([index, codes, checks]) => ({ index, codes, checks })),
    }));
    this.chunks = new Map();
    const several = (name) => new Set(this.plays.map((play) => play[name])).size > 1;
    this.named = ["run", "model", "sampling", "concurrency"].filter((name) => name === "model" || several(name));
    this.settings = [...Map.groupBy(this.plays, (play) => JSON.stringify([play.run, play.model, play.sampling, play.concurrency])).values()];
    this.settings.forEach((setting, number) => { for (const play of setting) play.setting = number; });
  }

  // The name of the setting of a play, without what is the same for all of them.
  settingOf(play) {
    return this.named.map((name) => (name === "concurrency" ? `${play[name]} at a time` : play[name])).join(" · ");
  }

  nameOf(play) {
    const of = this.settings[play.setting];
    const told = ["launch", "repeat"].filter((name) => new Set(of.map((each) => each[name])).size > 1);
    return [this.settingOf(play), ...told.map((name) => `${name} ${play[name]}`)].join(" · ");
  }

  // What was said in a conversation: for each of its turns gold, said, and plays: number → [which, times…].
  async read(talk) {
    if (!this.chunks.has(talk.chunk)) {
      if (this.chunks.size >= KEPT_CHUNKS) this.chunks.delete(this.chunks.keys().next().value);
      this.chunks.set(talk.chunk, unpacked(find(`script[data-chunk="${talk.chunk}"]`)));
    }
    return (await this.chunks.get(talk.chunk))[talk.place];
  }

  // Turns of a conversation in which two plays did not say the same.
  differing(talk, left, right) {
    return talk.turns.filter((turn) => turn.codes[left] !== turn.codes[right]);
  }

  // Checks that one play passed and the other did not, conversation by conversation.
  flips(left, right) {
    const found = [];
    this.talks.forEach((talk, number) => {
      for (const turn of talk.turns) {
        for (const [check, verdicts] of turn.checks) {
          const pair = verdicts[left] + verdicts[right];
          if (pair === "10" || pair === "01") found.push({ number, turn: turn.index, check, passed: pair === "10" ? "left" : "right" });
        }
      }
    });
    return found;
  }
}
