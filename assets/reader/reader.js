// The page: takes a photo, hands it to the worker, and shows what it answers.

const element = (id) => document.getElementById(id);
const photo = element("photo");
const worker = new Worker("worker.js", { type: "module" });
let model = null;

worker.onmessage = ({ data }) => {
  if (data.kind === "ready") {
    model = data.model;
    element("disclaimer").textContent = model.disclaimer;
    photo.disabled = false;
    say("Ready. Choose a photo.");
  } else if (data.kind === "answer") {
    show(data.probabilities);
    say("The photo was read.");
  } else {
    element("answer").hidden = true;
    say(data.message);
  }
};
worker.onerror = () => say("This browser can't run the network. Use a recent one.");

photo.onchange = () => {
  const [file] = photo.files;
  if (!file) return;
  element("answer").hidden = true;
  say("The photo is being read.");
  URL.revokeObjectURL(element("preview").src);
  element("preview").src = URL.createObjectURL(file);
  worker.postMessage(file);
};

function say(text) {
  element("status").textContent = text;
}

function show(probabilities) {
  element("tasks").replaceChildren(...Object.values(model.tasks).map((task) => section(task, probabilities)));
  element("calibration").textContent = model.calibrated
    ? ""
    : "These scores are not calibrated: a score of 90 % does not mean that 90 % of such answers are right.";
  element("answer").hidden = false;
}

function section(task, probabilities) {
  const shares = readTask(task, probabilities);
  const weighted = shares.map((share, index) => share * (task.class_weights ? task.class_weights[index] : 1));
  const predicted = weighted.indexOf(Math.max(...weighted));
  const part = document.createElement("section");
  part.append(text("h3", task.title));
  if (task.caveat) part.append(text("p", task.caveat, "note"));
  const table = document.createElement("table");
  task.classes.forEach((key, index) => table.append(row(task, key, shares[index], index === predicted)));
  part.append(table);
  const decision = decide(task, shares);
  if (decision) part.append(text("p", decision, "note"));
  return part;
}

// The same sums as `ClassGroups.read` of the library.
function readTask(task, probabilities) {
  const sums = task.members.map((group) => group.reduce((sum, index) => sum + probabilities[index], 0));
  if (!task.renormalise) return sums;
  const total = sums.reduce((sum, share) => sum + share, 0);
  return sums.map((share) => (total > 0 ? share / total : 1 / sums.length));
}

function decide(task, shares) {
  const threshold = task.operating_points.balanced;
  if (threshold === undefined) return "";
  const target = task.titles[task.target];
  const above = shares[task.classes.indexOf(task.target)] >= threshold;
  return `Balanced operating point: ${target} from ${percent(threshold)} on. This photo is ${above ? "above" : "below"} it.`;
}

function row(task, key, share, predicted) {
  const line = document.createElement("tr");
  if (predicted) line.className = "predicted";
  const meter = document.createElement("meter");
  meter.value = share;
  meter.setAttribute("aria-hidden", "true");
  const bar = document.createElement("td");
  bar.append(meter);
  const title = text("th", predicted ? `${task.titles[key]} (prediction)` : task.titles[key]);
  if (task.contents[key]) title.append(text("span", task.contents[key], "note"));
  line.append(title, bar, text("td", percent(share)));
  return line;
}

function text(tag, content, className = "") {
  const made = document.createElement(tag);
  made.textContent = content;
  made.className = className;
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}
