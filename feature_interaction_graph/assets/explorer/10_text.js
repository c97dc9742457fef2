// ---- text: everything from the data enters the page as text, never as markup ------------------------------------------
const $ = id => document.getElementById(id);

function el(tag, properties = {}, ...children) {
  const { aria = {}, ...rest } = properties, element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name === "role" ? name : `aria-${name}`, value);
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
}
function button(text, act, properties = {}) {
  const made = el("button", { type: "button", className: "plain", textContent: text, ...properties });
  made.addEventListener("click", act);
  return made;
}

function number(value, digits = 3) {
  if (!known(value)) return "unknown";
  const small = value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6);
  return (small ? value.toExponential(1) : String(Number(value.toPrecision(digits)))).replace(/-/g, "−");
}
const six = value => known(value) ? Number(value.toPrecision(6)) : null;
const probability = value => !known(value) ? "unknown" : value > 0 && value <= 1.01e-37 ? "< 1e−37" : number(value, 2);
const signed = value => (value > 0 ? "+" : value < 0 ? "−" : "") + number(Math.abs(value));
const percent = value => known(value) ? `${number(100 * value)} %` : "unknown";
const count = (many, noun) => `${many.toLocaleString("en")} ${noun}${many === 1 ? "" : "s"}`;
const clip = (text, length) => text.length > length ? text.slice(0, length - 1).trimEnd() + "…" : text;
const flat = text => text.replace(/[\u0000-\u001f\u007f\u2028\u2029]/g, "␣");      // as a canvas and one line can show it
const name = node => flat(clip(g.N.label[node] || g.N.id[node], 400));
const effect = value => !known(value) ? "unknown" : value === 0 ? "0.00"
  : (value > 0 ? "+" : "−") + (Math.abs(value) < 0.01 ? number(Math.abs(value), 2) : Math.abs(value).toFixed(2));

const STYLE = {
  excitatory: { css: "exc", dash: [], light: "#00845f", dark: "#3ecf9f" },
  inhibitory: { css: "inh", dash: [6, 4], light: "#cf4a0a", dark: "#ff8f52" },
  gating: { css: "oth", dash: [9, 3, 2, 3], light: "#7b5ea7", dark: "#bb9df0" },
};
const OTHER = { css: "oth", dash: [1.5, 3], light: "#7b5ea7", dark: "#bb9df0" };
const styleOf = type => STYLE[type] || OTHER;
const isDark = () => document.documentElement.dataset.theme === "dark";
const colourOf = type => styleOf(type)[isDark() ? "dark" : "light"];
const INKS = {
  light: { paper: "#ffffff", band: "#f7f9fb", ink: "#1d2733", soft: "#5d6b7a", node: "#64748a", seed: "#0072b2", none: "#c9d1da", veil: "#ffffffd9" },
  dark: { paper: "#14191f", band: "#191f27", ink: "#e6ebf1", soft: "#a3b0be", node: "#8c9bb0", seed: "#4db2ea", none: "#3a4552", veil: "#14191fd9" },
};
const ink = () => INKS[isDark() ? "dark" : "light"];
const GROUP_COLOURS = ["#4477aa", "#b8941a", "#aa3377", "#4d8fbf", "#886633", "#7766aa", "#557755", "#c56f80", "#33808c", "#808080"];

function mix(from, to, share) {
  const part = at => Math.round(parseInt(from.slice(at, at + 2), 16) * (1 - share) + parseInt(to.slice(at, at + 2), 16) * share);
  return `rgb(${part(1)},${part(3)},${part(5)})`;
}

function tokens(context) {                                   // a text with the token in «…» marked, or tokens in the colour of their activation
  const item = el("li", { dir: "auto" });
  if (typeof context === "string") {
    context.split(/(«[^»]*»)/).forEach(part => item.append(part.startsWith("«") && part.endsWith("»") ? el("mark", { textContent: part.slice(1, -1) }) : part));
    return item;
  }
  const most = Math.max(...context.values, 1e-9);
  context.tokens.forEach((token, at) => {
    const value = context.values[at], text = token.replace(/\n/g, "↵");
    if (!(value > 0)) { item.append(text); return; }
    const made = el("span", { className: "token", textContent: text, title: `activation ${number(value)}` });
    made.style.setProperty("--share", String(Math.round(15 + 70 * value / most)));
    if (at === context.firing) made.classList.add("firing");
    item.append(made);
  });
  return item;
}
