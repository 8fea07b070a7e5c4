"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const byId = (id) => document.getElementById(id);
const NONE = "none";
const questions = Object.keys(content.questions);
const asked = new URLSearchParams(location.search);
const token = asked.get("token"); // of a rater of `study serve`
let rater, screens, state, shownAt;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function show(id) {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
  scrollTo(0, 0);
}

// --- What is kept in the browser ---

const place = () => `study ${content.study} ${rater}`;

function remember() {
  try {
    localStorage.setItem(place(), JSON.stringify(state));
  } catch {
    byId("saving").textContent = "This browser keeps nothing: do not close the page before the end.";
  }
}

function recalled() {
  try {
    return JSON.parse(localStorage.getItem(place()));
  } catch {
    return null;
  }
}

function newState() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  const session = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { session, at: 0, answers: {}, unsent: [] };
}

// --- Answers ---

const answerTo = (screen, question) => state.answers[`${screen} ${question}`];

function answer(question, choice) {
  const seconds = Math.round((performance.now() - shownAt) / 100) / 10;
  const given = { screen: state.at, trial: screens[state.at][0], question, choice, seconds };
  state.answers[`${state.at} ${question}`] = given;
  if (token) state.unsent.push(given);
  remember();
  byId("missing").textContent = "";
  if (token) send();
}

function allAnswers() {
  const answers = Object.values(state.answers);
  answers.sort((a, b) => a.screen - b.screen || questions.indexOf(a.question) - questions.indexOf(b.question));
  return { kind: "study answers", study: content.study, rater, session: state.session, answers };
}

// One request at a time, in order; what fails stays in the list and is sent again.
let sending = false;
async function send() {
  if (sending) return;
  sending = true;
  while (state.unsent.length) {
    try {
      const reply = await fetch("answers", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ token, ...state.unsent[0] }),
      });
      if (reply.status === 429 || reply.status >= 500) throw new Error(`status ${reply.status}`);
      if (!reply.ok) {
        byId("saving").textContent = `An answer was refused: ${await reply.text()}`;
      }
      state.unsent.shift();
      remember();
      if (!state.unsent.length && reply.ok) byId("saving").textContent = "Saved.";
    } catch {
      byId("saving").textContent = "Not saved yet; trying again.";
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
  }
  sending = false;
  if (!byId("end").hidden) finished();
}

// --- Screens ---

function picture(name, text) {
  return element("img", { src: content.pictures[name], alt: text, draggable: false });
}

function question(name) {
  const [, ...pictures] = screens[state.at];
  const choices = pictures.map((picture, at) => [picture, String.fromCharCode(65 + at)]);
  if (content.ties) choices.push([NONE, "No difference"]);
  const labels = choices.map(([choice, text]) => {
    const input = element("input", {
      type: "radio", name, value: choice, checked: answerTo(state.at, name)?.choice === choice,
    });
    input.addEventListener("change", () => answer(name, choice));
    return element("label", {}, input, element("span", { textContent: text }));
  });
  return element("fieldset", { id: `question-${name}` },
    element("legend", { textContent: content.questions[name] }),
    element("div", { className: "choices" }, ...labels));
}

function showScreen() {
  if (state.at >= screens.length) return finish();
  const [trial, ...pictures] = screens[state.at];
  const [references, words] = content.trials[trial];
  byId("place").textContent = `Screen ${state.at + 1} of ${screens.length}`;
  Object.assign(byId("progress"), { max: screens.length, value: state.at });
  byId("references").replaceChildren(
    ...content.references[references].map((name, at) => picture(name, `Reference ${at + 1}`)));
  byId("words").textContent = words;
  byId("pictures").style.setProperty("--count", pictures.length);
  byId("pictures").replaceChildren(...pictures.map((name, at) => {
    const letter = String.fromCharCode(65 + at);
    return element("figure", {}, picture(name, `Picture ${letter}`), element("figcaption", { textContent: letter }));
  }));
  byId("questions").replaceChildren(...questions.map(question));
  byId("missing").textContent = "";
  byId("back").disabled = state.at === 0;
  show("screen");
  byId("place").focus();
  shownAt = performance.now();
  for (const name of screens[state.at + 1]?.slice(1) ?? []) new Image().src = content.pictures[name];
}

function move(step) {
  const open = questions.find((name) => !answerTo(state.at, name));
  if (step > 0 && open) {
    byId("missing").textContent = "Answer both questions first.";
    document.querySelector(`#question-${open} input`).focus();
    return;
  }
  state.at = Math.max(0, Math.min(screens.length, state.at + step));
  remember();
  showScreen();
}

function finish() {
  byId("code").textContent = state.session;
  show("end");
  byId("done").focus();
  finished();
}

function finished() {
  const sent = byId("sent");
  if (token) {
    sent.textContent = state.unsent.length ? "Not everything is saved yet; keep this page open." : "All answers are saved. You may close this page.";
    byId("by-hand").hidden = true;
  } else if (content.post && !state.posted) {
    sent.textContent = "Sending…";
    fetch(content.post, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(allAnswers()) })
      .then((reply) => {
        if (!reply.ok) throw new Error();
        state.posted = true;
        remember();
        sent.textContent = "Your answers were sent. You may close this page.";
        byId("by-hand").hidden = true;
      })
      .catch(() => { sent.textContent = "Your answers could not be sent. Save them as a file instead."; });
  }
}

function download() {
  const file = new Blob([JSON.stringify(allAnswers(), null, 2)], { type: "application/json" });
  const link = element("a", { href: URL.createObjectURL(file), download: `answers-${rater}-${state.session}.json` });
  link.click();
  URL.revokeObjectURL(link.href);
}

// --- Start ---

function begin(number) {
  if (!(Number.isInteger(number) && content.raters[number - 1])) {
    byId("no-rater").textContent = `Numbers go from 1 to ${content.raters.length}.`;
    return false;
  }
  rater = number;
  screens = content.raters[number - 1];
  state = recalled() ?? newState();
  return true;
}

async function beginWithToken() {
  const reply = await fetch(`session?token=${encodeURIComponent(token)}`);
  if (!reply.ok) {
    byId("no-rater").textContent = "This link is not known here. Check it with whoever invited you.";
    byId("begin").querySelector("button").disabled = true;
    return;
  }
  const session = await reply.json();
  if (!begin(session.rater)) return;
  for (const given of session.answers) state.answers[`${given.screen} ${given.question}`] ??= given;
  const open = screens.findIndex((_, at) => questions.some((name) => !answerTo(at, name)));
  state.at = open < 0 ? screens.length : open;
  remember();
  send();
}

document.querySelectorAll(".ties").forEach((part) => { part.hidden = !content.ties; });
byId("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  if (token ? state : begin(byId("rater").valueAsNumber)) showScreen();
});
byId("questions").addEventListener("submit", (event) => event.preventDefault());
byId("back").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));
byId("review").addEventListener("click", () => move(-1));
byId("download").addEventListener("click", download);
addEventListener("keydown", (event) => {
  if (byId("screen").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
    event.preventDefault();
    move(1);
  }
  if (!/^[0-9]$/.test(event.key)) return;
  // The question that has the focus, or else the first open one, or else the last.
  const focused = event.target.closest?.("fieldset");
  const open = questions.find((name) => !answerTo(state.at, name)) ?? questions.at(-1);
  const inputs = [...(focused ?? byId(`question-${open}`)).querySelectorAll("input")];
  const input = event.key === "0" ? inputs.find((one) => one.value === NONE) : inputs.filter((one) => one.value !== NONE)[event.key - 1];
  input?.click();
});
if (token) {
  byId("rater").closest("p").hidden = true;
  byId("rater").required = false;
  beginWithToken().catch(() => { byId("no-rater").textContent = "The server does not answer. Reload this page later."; });
} else if (asked.get("rater")) {
  byId("rater").value = asked.get("rater");
}
show("start");
