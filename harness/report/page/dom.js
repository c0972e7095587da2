// Elements are made here and nowhere else. Text only ever becomes text: no string is parsed as HTML on this page.

const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// What does not show: controls, changes of direction, separators of lines; and invisible letters of private use.
// Line feeds and tabs stay, as do the joiners that shape Persian, Indic scripts and emoji.
const INVISIBLE = /[^\P{Cc}\n\t]|[^\P{Cf}\u200c\u200d]|[\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;

function writtenOut(character) {
  const code = character.codePointAt(0);
  if (code < 0x100) return "\\x" + code.toString(16).padStart(2, "0");
  return code < 0x10000 ? "\\u" + code.toString(16).padStart(4, "0") : "\\U" + code.toString(16).padStart(8, "0");
}

const lines = (text) => text.replace(/\r\n?/g, "\n");

// Foreign text for a label or an option.
const visible = (text) => String(text).replace(INVISIBLE, writtenOut);

// Foreign text as nodes; what does not show is written out and set apart.
function visibleNodes(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INVISIBLE)) {
    if (match.index > end) nodes.push(text.slice(end, match.index));
    nodes.push(make("span", { class: "invisible" }, writtenOut(match[0])));
    end = match.index + match[0].length;
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
