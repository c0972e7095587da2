// Tables are sorted, filtered and shown a hundred rows at a time; the rows themselves are in the page from the start.

const ROWS_AT_ONCE = 100;

class DataTable {
  constructor(table) {
    this.table = table;
    this.body = table.tBodies[0];
    this.rows = [...this.body.rows];
    this.matching = this.rows;
    this.limit = ROWS_AT_ONCE;
    this.headers = findAll("th", table);
    this.headers.forEach((header, column) => find("button", header).addEventListener("click", () => this.sort(column)));
    this.more = make("button", { type: "button", class: "more", onclick: () => this.showMore() });
    table.parentElement.after(this.more);
    this.show();
  }

  sort(column) {
    const header = this.headers[column];
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of this.headers) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = header.classList.contains("number");
    const keyOf = (row) => {
      const cell = row.cells[column];
      if (!numeric) return cell.textContent;
      return cell.dataset.key === "" ? null : Number(cell.dataset.key);
    };
    const keys = new Map(this.rows.map((row) => [row, keyOf(row)]));
    const compare = numeric ? (a, b) => a - b : new Intl.Collator(undefined, { numeric: true }).compare;
    this.rows.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      if (a === null || b === null) return (a === null) - (b === null); // what is absent comes last, either way
      return down ? compare(b, a) : compare(a, b);
    });
    this.body.append(...this.rows);
    this.filter(this.wanted);
  }

  filter(wanted = () => true) {
    this.wanted = wanted;
    this.matching = this.rows.filter(wanted);
    this.show();
  }

  show() {
    const shown = new Set(this.matching.slice(0, this.limit));
    for (const row of this.rows) row.hidden = !shown.has(row);
    const rest = this.matching.length - shown.size;
    this.more.hidden = rest <= 0;
    this.more.textContent = `Show ${Math.min(rest, this.limit)} more of ${plural(this.matching.length, "row")}`;
  }

  showMore() {
    this.limit *= 2;
    this.show();
  }
}

function openTables() {
  const tables = findAll("table[data-name]").map((table) => new DataTable(table));
  const form = find("#filter");
  const filtered = tables.filter((each) => find("#results").contains(each.table));
  const rows = filtered.flatMap((each) => each.rows);
  for (const name of ["model", "sampling"]) {
    const values = new Set(rows.map((row) => row.dataset[name]).filter(Boolean));
    form.elements[name].append(...[...values].map((value) => make("option", { value }, value)));
  }
  const filter = () => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [model, sampling] = [form.elements.model.value, form.elements.sampling.value];
    const fits = (value, chosen) => !chosen || !value || value === chosen;
    for (const each of filtered) {
      each.filter((row) => {
        if (!fits(row.dataset.model, model) || !fits(row.dataset.sampling, sampling)) return false;
        row.words ??= row.textContent.toLowerCase();
        return words.every((word) => row.words.includes(word));
      });
    }
    const matching = filtered.reduce((sum, each) => sum + each.matching.length, 0);
    find("output", form).textContent = matching === rows.length ? "" : `${matching} of ${plural(rows.length, "row")}`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
}
