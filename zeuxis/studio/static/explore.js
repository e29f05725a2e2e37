// Explore: this page holds the latent, moves it, and asks the studio for the picture of where it is.
//
// One request for a live picture is under way at a time. Whatever moves meanwhile is in the next one, so a slow model
// gives fewer pictures and never late ones.

// The page is drawn after this script is loaded.
const root = await new Promise((found) => {
  const seek = () => { const made = document.getElementById("explore"); if (made) { watch.disconnect(); found(made); } };
  const watch = new MutationObserver(seek);
  watch.observe(document.documentElement, { childList: true, subtree: true });
  seek();
});

// -- elements ---------------------------------------------------------------------------------------------------------

function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in { value: 1, checked: 1, disabled: 1, hidden: 1 }) made[name] = value;
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
const button = (text, onclick, attributes = {}) => h("button", { type: "button", onclick, ...attributes }, text);
const say = (text) => { status.textContent = text; clearTimeout(say.timer); say.timer = setTimeout(() => (status.textContent = ""), 7000); };
const status = h("div", { class: "toast", role: "status", "aria-live": "polite" });
function slider(label, low, high, value, onchange, digits = 2) {
  const output = h("output", {}, value.toFixed(digits));
  const input = h("input", {
    type: "range", min: low, max: high, step: digits ? (high - low) / 200 : 1, value, "aria-label": label,
    oninput: () => { output.textContent = (+input.value).toFixed(digits); onchange(+input.value); },
    ondblclick: () => { input.value = value; input.dispatchEvent(new Event("input")); },
  });
  const made = h("div", { class: "slide" }, h("span", { class: "name", title: label }, label), input, output);
  made.set = (now) => { input.value = now; output.textContent = (+input.value).toFixed(digits); };
  return made;
}
function choice(label, options, value, onchange) {
  const made = h("select", { onchange: () => onchange(made.value) }, ...options.map(([key, words]) => h("option", { value: key }, words)));
  made.value = value;
  return h("label", { class: "field" }, label, made);
}
function save(content, name, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// -- the socket -------------------------------------------------------------------------------------------------------

const waiting = new Map();
let socket, next = 1;
function connect() {
  return new Promise((resolve) => {
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket/explore/${encodeURIComponent(root.dataset.run)}`);
    socket.binaryType = "arraybuffer";
    socket.onopen = resolve;
    socket.onmessage = ({ data }) => {
      const length = new DataView(data).getUint32(0, true);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      const answer = waiting.get(header.id);
      waiting.delete(header.id);
      if (answer) header.error ? answer.reject(new Error(header.error)) : answer.resolve({ header, content: data.slice(4 + length) });
    };
    socket.onclose = () => {
      for (const { reject } of waiting.values()) reject(new Error("The studio does not answer. It is asked again…"));
      waiting.clear();
      flying = false;
      setTimeout(() => connect().then(look), 1500);
    };
  });
}
function ask(what, content = new Uint8Array(), more = {}) {
  const id = next++;
  const header = new TextEncoder().encode(JSON.stringify({ id, do: what, options: state.options, ...more }));
  const bytes = new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
  const message = new Uint8Array(4 + header.length + bytes.length);
  new DataView(message.buffer).setUint32(0, header.length, true);
  message.set(header, 4);
  message.set(bytes, 4 + header.length);
  return new Promise((resolve, reject) => {
    if (socket.readyState !== WebSocket.OPEN) return reject(new Error("The studio does not answer."));
    waiting.set(id, { resolve, reject });
    socket.send(message);
  });
}
async function tried(work) {
  try { return await work(); } catch (error) { say(error.message); return null; }
}

// -- latents ----------------------------------------------------------------------------------------------------------

let about, state = { options: {} }, directions = [];
const dot = (a, b) => { let sum = 0; for (let i = 0; i < a.length; i++) sum += a[i] * b[i]; return sum; };
const plus = (a, b, times = 1) => a.map((value, i) => value + times * b[i]);
const unit = (a) => { const norm = Math.sqrt(dot(a, a)) || 1; return a.map((value) => value / norm); };
const axis = (i) => { const made = new Float32Array(about.latent); made[i] = 1; return made; };

// As zeuxis.run.slerp: spherical where there is an angle and many dimensions.
function slerp(a, b, t) {
  const cosine = dot(a, b) / Math.max(Math.sqrt(dot(a, a) * dot(b, b)), 1e-12);
  const angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
  if (Math.sin(angle) < 1e-4 || a.length < 4) return plus(a.map((value) => value * (1 - t)), b, t);
  const [p, q] = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
  return plus(a.map((value) => value * p), b, q);
}
function condition() {
  const { kind, size, vectors } = about.condition, made = new Float32Array(size);
  if (kind === "none") return made;
  if (kind === "numbers" || kind === "attributes") return Float32Array.from(state.weights);
  const sum = state.weights.reduce((a, b) => a + b, 0) || 1;
  state.weights.forEach((weight, i) => { if (weight) vectors[i].forEach((value, k) => (made[k] += (weight * value) / sum)); });
  return made;
}
function place() { // the latent, before it is scaled
  let z = Float32Array.from(state.base);
  z = plus(z, state.u, state.x - dot(z, state.u));
  z = plus(z, state.v, state.y - dot(z, state.v));
  for (const [i, amount] of state.along) if (amount) z = plus(z, directions[i].vector, amount);
  return z;
}
function joined(z, c) {
  const made = new Float32Array(about.latent + about.condition.size);
  made.set(z.map((value) => value * state.scale));
  made.set(c, about.latent);
  return made;
}
const here = () => joined(place(), condition());
function goto(z, c = null) {
  state.base = Float32Array.from(z);
  state.along.clear();
  [state.x, state.y] = [dot(state.base, state.u), dot(state.base, state.v)];
  if (c) {
    const { kind, vectors } = about.condition;
    if (kind === "classes") {
      // The mixture of classes that gives this condition: exact where vectors are one-hot.
      if (vectors[0]?.length === vectors.length) state.weights = Array.from(c);
      else { const nearest = vectors.map((v) => v.reduce((sum, value, k) => sum + (value - c[k]) ** 2, 0)); state.weights = vectors.map((_, i) => +(i === nearest.indexOf(Math.min(...nearest)))); }
    } else if (kind !== "none") state.weights = Array.from(c);
  }
  show();
  landscape();
}

// -- the picture ------------------------------------------------------------------------------------------------------

let flying = false, wanted = null, painting;
const latencies = [];
function look(moved = performance.now()) {
  wanted = typeof moved === "number" ? moved : performance.now();
  if (!flying) fly();
}
async function fly() {
  flying = true;
  while (wanted !== null) {
    const since = wanted;
    wanted = null;
    try {
      const { content } = await ask("live", here());
      paint(painting, new Uint8Array(content));
      latencies.push(performance.now() - since);
      if (latencies.length > 5000) latencies.shift();
    } catch (error) { say(error.message); break; }
  }
  flying = false;
  after();
}
function paint(canvas, bytes, offset = 0) {
  fit(canvas);
  canvas.getContext("2d").putImageData(imageOf(bytes, offset), 0, 0);
}
// As large as a picture, and as wide for its height.
function fit(canvas) {
  const { width, height } = about.size;
  if (canvas.width === width && canvas.height === height) return;
  Object.assign(canvas, { width, height });
  canvas.style.aspectRatio = `${width} / ${height}`;
  canvas.classList.toggle("checks", about.channels === 4);
}
// The bytes of a picture.
const bytesEach = () => about.size.width * about.size.height * about.channels;
function imageOf(bytes, offset) {
  const { size: { width, height }, channels } = about, image = new ImageData(width, height), data = image.data;
  for (let i = 0, from = offset; i < width * height; i++, from += channels) {
    data[4 * i] = bytes[from];
    data[4 * i + 1] = bytes[channels > 1 ? from + 1 : from];
    data[4 * i + 2] = bytes[channels > 1 ? from + 2 : from];
    data[4 * i + 3] = channels === 4 ? bytes[from + 3] : 255;
  }
  return image;
}
const tile = (bytes, index) => { const canvas = h("canvas", { class: "pixels tile" }); paint(canvas, bytes, index * bytesEach()); return canvas; };

// What may come a moment later than the picture: the discriminator's word.
let pause;
function after() {
  clearTimeout(pause);
  if (!about.discriminates || judging.hidden) return;
  pause = setTimeout(() => tried(async () => {
    const { header } = await ask("judge", here());
    verdict.textContent = `It finds this more real than ${Math.round(100 * header.real)} % of real images, and than ${Math.round(100 * header.made)} % of samples.`;
    meter.value = header.real;
  }), 120);
}
let judging, verdict, meter;

// -- the plane --------------------------------------------------------------------------------------------------------

const SIDE = 560, TILES = 15;
let plane, under, over, mark, points = null, hue = "", ground = "map", span = 3;
const toPlane = (x, y) => [((x + span) / (2 * span)) * SIDE, ((span - y) / (2 * span)) * SIDE];
function moveMark() { // an element of its own: to draw the canvas anew at every move would cost more than a small picture
  const [x, y] = toPlane(state.x, state.y);
  Object.assign(mark.style, { left: `${(100 * x) / SIDE}%`, top: `${(100 * y) / SIDE}%` });
}
function drawOver() {
  moveMark();
  const context = over.getContext("2d");
  context.clearRect(0, 0, SIDE, SIDE);
  context.fillStyle = getComputedStyle(document.body).color; context.font = "600 15px system-ui";
  pins.forEach((pin, i) => {
    const [x, y] = toPlane(dot(pin.z, state.u), dot(pin.z, state.v));
    context.fillText(`${i + 1}`, x - 4, y + 5);
  });
}
function drawUnder() {
  const context = under.getContext("2d"), style = getComputedStyle(document.body);
  context.clearRect(0, 0, SIDE, SIDE);
  if (ground === "landscape" && scenery) {
    context.imageSmoothingEnabled = about.size.height > 64;
    context.drawImage(scenery, 0, 0, SIDE, SIDE);
    return;
  }
  context.strokeStyle = style.getPropertyValue("--rule"); context.lineWidth = 1;
  const step = span > 6 ? 5 : 1;
  for (let k = -Math.ceil(span / step) * step; k <= span; k += step) {
    const [x, y] = toPlane(k, k);
    context.globalAlpha = k === 0 ? 1 : 0.6; context.lineWidth = k === 0 ? 2 : 1;
    context.beginPath(); context.moveTo(x, 0); context.lineTo(x, SIDE); context.moveTo(0, y); context.lineTo(SIDE, y); context.stroke();
  }
  context.globalAlpha = 0.8;
  if (ground === "map" && points) {
    const { places, labels } = points, size = labels.length > 2000 ? 3 : 4;
    for (let i = 0; i < labels.length; i++) {
      const [x, y] = toPlane(places[2 * i], places[2 * i + 1]);
      if (x < 0 || y < 0 || x > SIDE || y > SIDE) continue;
      context.fillStyle = about.colours[labels[i] % about.colours.length];
      context.fillRect(x - size / 2, y - size / 2, size, size);
    }
  }
  context.globalAlpha = 1;
}
async function loadMap(fit = false) {
  if (!about.maps) return;
  await tried(async () => {
    const axes = new Float32Array(2 * about.latent);
    axes.set(state.u); axes.set(state.v, about.latent);
    const { header, content } = await ask("map", axes, { attribute: hue });
    points = { places: new Float32Array(content, 0, 2 * header.count), labels: new Uint16Array(content, 8 * header.count, header.count), names: header.names };
    legend.replaceChildren(...points.names.slice(0, 24).map((name, i) => h("span", { class: "key" }, h("i", { style: `background:${about.colours[i % about.colours.length]}` }), name)));
    if (fit) {
      const far = Float32Array.from(points.places, Math.abs).sort();
      span = Math.min(Math.max(far[Math.floor(0.995 * (far.length - 1))] * 1.08, 0.5), 50);
    }
    drawUnder(); drawOver();
  });
}
let legend, scenery = null, sceneryWork = 0;
function landscape() { // pictures of the whole plane, a row at a time so that the pointer's picture goes between
  if (ground !== "landscape") return;
  clearTimeout(landscape.timer);
  landscape.timer = setTimeout(async () => {
    const work = ++sceneryWork, sheet = document.createElement("canvas"), width = about.latent + about.condition.size;
    let cost = 40, tiles = TILES; // milliseconds of a picture: the first one tells
    for (let index = -1, many = 1; index < tiles * tiles; index += many) {
      many = index < 0 ? 1 : Math.min(Math.max(Math.floor(40 / cost), 1), 16, tiles * tiles - index);
      const numbers = new Float32Array(many * width), { x, y } = state;
      for (let k = 0; k < many; k++) {
        const at = Math.max(index + k, 0);
        state.x = span * ((2 * (at % tiles) + 1) / tiles - 1); state.y = span * (1 - (2 * Math.floor(at / tiles) + 1) / tiles);
        numbers.set(here(), k * width);
      }
      Object.assign(state, { x, y });
      while (flying) await new Promise((go) => setTimeout(go, 60)); // the pointer's picture first
      const since = performance.now(), answer = await tried(() => ask("pictures", numbers));
      if (!answer || work !== sceneryWork) return;
      cost = (performance.now() - since) / many;
      if (index < 0) { // of a slow model fewer pictures
        tiles = cost > 60 ? 7 : cost > 25 ? 11 : TILES;
        sheet.width = tiles * about.size.width; sheet.height = tiles * about.size.height;
        continue;
      }
      const bytes = new Uint8Array(answer.content);
      for (let k = 0; k < many; k++)
        sheet.getContext("2d").putImageData(imageOf(bytes, k * bytesEach()), ((index + k) % tiles) * about.size.width, Math.floor((index + k) / tiles) * about.size.height);
      scenery = sheet;
      drawUnder();
    }
  }, 150);
}
function moveTo(x, y, when) {
  const far = span * 1.5;
  state.x = Math.min(Math.max(x, -far), far); state.y = Math.min(Math.max(y, -far), far);
  moveMark();
  where.textContent = `${state.x.toFixed(2)}, ${state.y.toFixed(2)}`;
  look(when);
}
let where;
function pointed(event) {
  const box = over.getBoundingClientRect();
  moveTo(span * (2 * (event.clientX - box.left) / box.width - 1), span * (1 - 2 * (event.clientY - box.top) / box.height), event.timeStamp);
}
async function visit(event) { // the encoded image under the pointer
  if (ground !== "map" || !points) return;
  const box = over.getBoundingClientRect(), scale = SIDE / box.width;
  const [px, py] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  let best = -1, nearestYet = 14 ** 2;
  for (let i = 0; i < points.labels.length; i++) {
    const [x, y] = toPlane(points.places[2 * i], points.places[2 * i + 1]), far = (x - px) ** 2 + (y - py) ** 2;
    if (far < nearestYet) [best, nearestYet] = [i, far];
  }
  if (best < 0) return;
  await tried(async () => {
    const { header, content } = await ask("point", undefined, { index: best }), width = about.latent + about.condition.size;
    const numbers = new Float32Array(content, 0, width);
    goto(numbers.slice(0, about.latent), numbers.slice(about.latent));
    original.replaceChildren(h("figure", {}, tile(new Uint8Array(content, 4 * width), 0), h("figcaption", {}, `the image ${header.name}; beside it, what its latent gives`)));
  });
}
function zoom(times) { span = Math.min(Math.max(span * times, 0.05), 500); drawUnder(); drawOver(); landscape(); }

function axes() { // everything that an axis of the plane can be
  const named = directions.map((d, i) => [`d${i}`, `${d.name}${/strongest|component/.test(d.name) ? "" : ` (${d.group.toLowerCase()})`}`]);
  const plain = Array.from({ length: Math.min(about.latent, 32) }, (_, i) => [`z${i}`, `latent ${i + 1}`]);
  const pinned = pins.length > 1 ? [["pins", "from pin 1 to pin 2"]] : [];
  return [...plain, ...named, ...pinned];
}
const vectorOf = (key) => key === "pins" ? plus(pins[1].z, pins[0].z, -1) : key[0] === "z" ? axis(+key.slice(1)) : directions[+key.slice(1)].vector;
let across = "z0", up = "z1";
function setPlane(first, second) {
  const z = place();
  let u = unit(vectorOf(first)), v = vectorOf(second);
  v = plus(v, u, -dot(u, v));
  if (Math.sqrt(dot(v, v)) < 1e-6) { say("These are the same direction; choose another for one axis."); return false; }
  [across, up, state.u, state.v] = [first, second, u, unit(v)];
  state.base = z; state.along.clear();
  [state.x, state.y] = [dot(z, state.u), dot(z, state.v)];
  show(); loadMap(true); landscape();
  return true;
}

// -- pins -------------------------------------------------------------------------------------------------------------

const pins = [];
let tray, walk = 0, playing = null;
function pin() {
  if (pins.length >= 24) return say("24 pins are enough; remove one first.");
  const canvas = h("canvas", { class: "pixels" });
  fit(canvas);
  canvas.getContext("2d").drawImage(painting, 0, 0);
  pins.push({ z: place(), c: condition(), weights: [...state.weights], canvas, sign: 0 });
  drawPins();
}
function drawPins() {
  const many = pins.length > 1;
  tray.replaceChildren(
    ...pins.map((one, i) => h("div", { class: "pin" },
      h("button", { type: "button", class: "plain tilebutton", "aria-label": `Go to pin ${i + 1}`, onclick: () => goto(one.z, one.c) }, one.canvas),
      h("div", { class: "line", style: "gap:.1rem" },
        ...[["+", 1, "Add"], ["−", -1, "Subtract"]].map(([text, sign, word]) => button(text, () => { one.sign = one.sign === sign ? 0 : sign; drawPins(); }, { class: "plain small", "aria-pressed": one.sign === sign, "aria-label": `${word} pin ${i + 1}` })),
        button("×", () => { pins.splice(i, 1); drawPins(); drawOver(); }, { class: "plain small", "aria-label": `Remove pin ${i + 1}` })))),
    pins.length ? "" : h("p", { class: "muted" }, "Pin pictures that you like. Two pins make a walk; with + and − they make a sum."));
  controls.hidden = !many;
  sum.disabled = !pins.some((one) => one.sign);
  stroll.max = Math.max(pins.length - 1, 1);
  fillAxes();
  drawOver();
}
let controls, sum, stroll;
function between(t) { // the latent and condition at place t of the walk through all pins
  const i = Math.min(Math.floor(t), pins.length - 2), part = t - i, [a, b] = [pins[i], pins[i + 1]];
  return [slerp(a.z, b.z, part), plus(a.c.map((value) => value * (1 - part)), b.c, part)];
}
function strollTo(t) {
  walk = t; stroll.value = t;
  const [z, c] = between(t);
  state.base = Float32Array.from(z); state.along.clear();
  [state.x, state.y] = [dot(z, state.u), dot(z, state.v)];
  if (about.condition.kind !== "none") state.weights = about.condition.kind === "classes" && about.condition.vectors[0]?.length !== about.condition.vectors.length ? pins[Math.round(t)].weights : Array.from(c);
  show(false);
}
function play() {
  if (playing) { cancelAnimationFrame(playing); playing = null; playButton.textContent = "Play"; return; }
  let last = performance.now(), forward = 1;
  playButton.textContent = "Stop";
  const frame = (now) => {
    const most = pins.length - 1;
    walk += forward * Math.min((now - last) / 1500, 0.2); last = now;
    if (walk >= most || walk <= 0) forward = walk <= 0 ? 1 : -1;
    strollTo(Math.min(Math.max(walk, 0), most));
    playing = requestAnimationFrame(frame);
  };
  playing = requestAnimationFrame(frame);
}
let playButton, kind = "gif";
async function film() {
  const each = Math.max(Math.min(24, Math.floor(200 / (pins.length - 1))), 2), count = each * (pins.length - 1) + 1;
  const width = about.latent + about.condition.size, numbers = new Float32Array(count * width);
  for (let k = 0; k < count; k++) numbers.set(joined(...between((k * (pins.length - 1)) / (count - 1))), k * width);
  say("The film is being made…");
  await tried(async () => { save((await ask("film", numbers, { kind })).content, `${about.name}-walk.${kind}`, kind === "mp4" ? "video/mp4" : `image/${kind}`); say(`The film is saved: ${about.name}-walk.${kind}.`); });
}
function add() {
  const signed = pins.filter((one) => one.sign);
  const z = signed.reduce((total, one) => plus(total, one.z, one.sign), new Float32Array(about.latent));
  const c = signed.reduce((total, one) => plus(total, one.c, one.sign), new Float32Array(about.condition.size));
  goto(z, about.condition.kind === "classes" && c.some((value) => value < 0) ? null : c);
}

// -- everything on the page -------------------------------------------------------------------------------------------

const sliders = [], weights = [];
let chips, fillAxes = () => {};
function show(slid = true) { // what the state is, on every control
  for (const [made, read] of sliders) if (slid || made.follows) made.set(read());
  weights.forEach((made, i) => made.set(state.weights[i]));
  chips?.querySelectorAll("button").forEach((made, i) => made.setAttribute("aria-pressed", state.weights[i] === 1 && state.weights.every((w, k) => k === i || !w)));
  if (where) where.textContent = `${state.x.toFixed(2)}, ${state.y.toFixed(2)}`;
  drawOver(); look();
}
async function fresh(seed) {
  await tried(async () => goto(new Float32Array((await ask("latents", undefined, { seed })).content)));
}
async function photograph(file) {
  if (!file) return;
  if (file.size > 12 * 2 ** 20) return say("The file is larger than 12 MiB; choose a smaller picture.");
  const bytes = new Uint8Array(await file.arrayBuffer()), c = new Uint8Array(condition().buffer);
  const content = new Uint8Array(c.length + bytes.length);
  content.set(c); content.set(bytes, c.length);
  if (about.projects) say("This model has no encoder, so the latent is searched: some seconds, or minutes if images are large.");
  await tried(async () => {
    const answer = await ask("photograph", content);
    goto(new Float32Array(answer.content, 0, about.latent));
    original.replaceChildren(h("figure", {}, tile(new Uint8Array(answer.content, 4 * about.latent), 0), h("figcaption", {}, about.encodes ? "your photograph, as the model sees it; beside it, what its latent gives" : "your photograph, as the model sees it; beside it, the nearest that the search found")));
  });
}
let original;
async function nearest() {
  await tried(async () => {
    const { header, content } = await ask("nearest", here()), bytes = new Uint8Array(content);
    neighbours.replaceChildren(h("p", { class: "small muted" }, "Nearest training images, by distance in pixels. A picture that equals one is a copy."),
      h("div", { class: "line" }, ...header.names.map((name, i) => h("figure", { title: name }, tile(bytes, i), h("figcaption", { class: "number" }, header.distances[i].toFixed(2))))));
  });
}
let neighbours;

function pictureCard() {
  painting = h("canvas", { class: about.size.height <= 64 ? "pixels" : "", role: "img", "aria-label": "The picture of the latent" });
  const seed = h("input", { type: "number", min: 0, value: 1, "aria-label": "Seed of the latent", style: "width:6rem", onchange: () => fresh(+seed.value || 0) });
  const file = h("input", { type: "file", accept: "image/*", class: "unseen", id: "photograph", tabindex: -1, "aria-label": "A photograph", onchange: () => { photograph(file.files[0]); file.value = ""; } });
  original = h("div"); neighbours = h("div");
  const can = about.encodes || about.projects;
  return h("section", { class: "card picture", "aria-label": "The picture" },
    h("div", { class: "stage" }, painting, original),
    h("div", { class: "line" },
      seed, button("New", () => { seed.value = Math.floor(Math.random() * 1e6); fresh(+seed.value); }, { title: "A new latent (n)" }),
      button("Pin", pin, { class: "main", title: "Pin this picture (p)" }),
      button("Save PNG", () => painting.toBlob((blob) => save(blob, `${about.name}.png`, "image/png"))),
      button("Save latent", () => tried(async () => save((await ask("archive", here())).content, `${about.name}-latent.npz`, "application/octet-stream"))),
      about.missing ? null : button("Nearest images", nearest)),
    chips = about.condition.kind === "classes" && about.condition.names.length <= 40
      ? h("div", { class: "line chips", role: "group", "aria-label": "Class" }, ...about.condition.names.map((name, i) => button(name, () => { state.weights = state.weights.map((_, k) => +(k === i)); show(); landscape(); }, { "aria-pressed": "false" })))
      : null,
    can ? h("div", { class: "drop" }, file, "Drop a photograph here, or ", button("choose one", () => file.click()), about.condition.kind === "none" ? "" : ` It is ${about.encodes ? "encoded" : "searched"} as the class chosen above.`) : null,
    judging = h("div", { class: "judge", hidden: !about.discriminates },
      h("div", { class: "small muted" }, "The discriminator"), meter = h("meter", { min: 0, max: 1, value: 0, "aria-label": "Share of real images that look less real to the discriminator" }), verdict = h("p", { class: "small" })),
    neighbours);
}
function planeCard() {
  under = h("canvas", { width: SIDE, height: SIDE, "aria-hidden": "true" });
  over = h("canvas", {
    width: SIDE, height: SIDE, tabindex: 0, role: "application", "aria-label": "The plane. Arrow keys move through it, with Shift in larger steps; plus and minus zoom.",
    onpointerdown: (event) => { over.setPointerCapture(event.pointerId); over.focus({ preventScroll: true }); pointed(event); },
    onpointermove: (event) => { if (event.buttons) pointed(event); },
    ondblclick: visit,
    onwheel: (event) => { event.preventDefault(); zoom(event.deltaY > 0 ? 1.1 : 1 / 1.1); },
    onkeydown: (event) => {
      const by = span * (event.shiftKey ? 0.15 : 0.03), move = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, by], ArrowDown: [0, -by] }[event.key];
      if (move) { event.preventDefault(); moveTo(state.x + move[0], state.y + move[1], event.timeStamp); }
      if (event.key === "+" || event.key === "-") zoom(event.key === "-" ? 1.1 : 1 / 1.1);
    },
  });
  mark = h("span", { class: "mark", "aria-hidden": "true" });
  const strokes = '<circle r="9"/><path d="M-16 0H-4M4 0H16M0-16V-4M0 4V16"/>';
  mark.innerHTML = `<svg viewBox="-19 -19 38 38"><g stroke="var(--paper)" stroke-width="5">${strokes}</g><g stroke="var(--ink)" stroke-width="2">${strokes}</g></svg>`;
  legend = h("div", { class: "legend" });
  where = h("span", { class: "number muted small" });
  const selects = h("div", { class: "line" });
  fillAxes = () => selects.replaceChildren(
    choice("Across", axes(), across, (key) => setPlane(key, up) || fillAxes()), choice("Up", axes(), up, (key) => setPlane(across, key) || fillAxes()),
    choice("Under it", [...(about.maps ? [["map", "encoded images"]] : []), ["landscape", "pictures"], ["none", "nothing"]], ground, (key) => { ground = key; legend.hidden = key !== "map"; drawUnder(); landscape(); }),
    about.attributes.length ? choice("Colour", [["", "class"], ...about.attributes.map((name) => [name, name])], hue, (key) => { hue = key; loadMap(); }) : "");
  fillAxes();
  return h("section", { class: "card plane", "aria-label": "The plane" }, selects,
    h("div", { class: "field-of-view" }, under, over, mark),
    h("div", { class: "between" }, where, h("div", { class: "line", style: "gap:.2rem" },
      button("−", () => zoom(1.25), { class: "plain", "aria-label": "Zoom out" }), button("+", () => zoom(0.8), { class: "plain", "aria-label": "Zoom in" }),
      about.maps ? button("Fit", () => loadMap(true), { class: "plain" }) : null)),
    legend, about.missing ? h("p", { class: "small muted" }, `No map: ${about.missing}`) : about.encodes ? null : h("p", { class: "small muted" }, "This model does not encode images, so there is no map of them; “pictures” shows what lies where."));
}
function group(name, open, ...children) { return h("details", { open }, h("summary", {}, name), ...children); }
function tracked(made, read, follows = false) { made.follows = follows; sliders.push([made, read]); return made; }
function sliderCard() {
  const card = h("section", { class: "card sliders", "aria-label": "Sliders" });
  const { kind, names, parts, scales } = about.condition;
  const general = [tracked(slider("scale", 0, 3, 1, (value) => { state.scale = value; look(); landscape(); }), () => state.scale)];
  for (const [name, value] of Object.entries(about.options)) {
    const whole = Number.isInteger(value) && /steps/.test(name);
    general.push(slider(name.replaceAll("_", " "), whole ? 1 : 0, whole ? 64 : Math.max(5, 2 * value), value, (now) => { state.options = { ...state.options, [name]: now }; look(); landscape(); }, whole ? 0 : 2));
  }
  card.append(group("Sampling", true, ...general));
  if (kind === "classes") {
    const made = names.slice(0, 200).map((name, i) => slider(name, 0, 1, state.weights[i], (value) => { state.weights[i] = value; look(); landscape(); }));
    weights.push(...made);
    card.append(group("Mixture of classes", names.length <= 12, ...made));
  } else if (kind !== "none") {
    const made = parts.map((name, i) => slider(scales[i] ? `${name} (${scales[i][0].toFixed(2)} ± ${scales[i][1].toFixed(2)})` : name, kind === "numbers" ? -2.5 : -0.5, kind === "numbers" ? 2.5 : 1.5, state.weights[i], (value) => { state.weights[i] = value; look(); landscape(); }));
    weights.push(...made);
    card.append(group(kind === "numbers" ? "Numbers" : "Attributes asked for", true, ...made));
  }
  for (const code of about.codes) {
    const set = (values) => { values.forEach((value, k) => (state.base[code.start + k] = value)); [state.x, state.y] = [dot(state.base, state.u), dot(state.base, state.v)]; drawOver(); look(); };
    card.append(group(code.name, true, code.size > 1
      ? h("div", { class: "line chips", role: "group", "aria-label": code.name }, ...Array.from({ length: code.size }, (_, k) => button(`${k}`, () => set(Array.from({ length: code.size }, (_, j) => +(j === k))))))
      : tracked(slider("value", -2, 2, 0, (value) => set([value])), () => state.base[code.start])));
  }
  const groups = new Map();
  directions.forEach((direction, i) => {
    const made = tracked(slider(direction.name, -direction.reach, direction.reach, 0, (value) => { state.along.set(i, value); look(); landscape(); }), () => state.along.get(i) || 0, true);
    groups.set(direction.group, [...(groups.get(direction.group) || []), made]);
  });
  for (const [name, made] of groups) card.append(group(name, made.length <= 12, ...made));
  card.append(button("All to the middle", () => { state.along.clear(); state.scale = 1; show(); landscape(); }));
  return card;
}
function pinCard() {
  tray = h("div", { class: "tray" });
  stroll = h("input", { type: "range", min: 0, max: 1, step: 0.005, value: 0, "aria-label": "Place on the walk through the pins", oninput: () => strollTo(+stroll.value) });
  sum = button("Go to the sum", add, { title: "Adds the pins marked +, subtracts those marked −" });
  playButton = button("Play", play);
  controls = h("div", { hidden: true }, stroll, h("div", { class: "line" }, playButton, button("Save a film", film), choice("Format of the film", [["gif", "GIF"], ["webp", "WebP"], ["mp4", "MP4"]], kind, (value) => { kind = value; }), sum,
    button("Save all latents", () => tried(async () => { const width = about.latent + about.condition.size, all = new Float32Array(pins.length * width); pins.forEach((one, i) => all.set(joined(one.z, one.c), i * width)); save((await ask("archive", all)).content, `${about.name}-pins.npz`, "application/octet-stream"); }))));
  return h("section", { class: "card", "aria-label": "Pins" }, h("h2", { style: "margin-top:0" }, "Pins"), tray, controls);
}

async function start() {
  await connect();
  document.body.append(status);
  about = (await ask("describe")).header;
  state = { options: {}, base: new Float32Array((await ask("latents", undefined, { seed: 1 })).content), x: 0, y: 0, scale: 1, along: new Map(), u: axis(0), v: axis(about.latent > 1 ? 1 : 0), weights: [] };
  const { kind, names, parts } = about.condition;
  state.weights = kind === "classes" ? names.map((_, i) => +(i === 0)) : kind === "none" ? [] : parts.map(() => 0);
  [state.x, state.y] = [dot(state.base, state.u), dot(state.base, state.v)];
  if (!about.maps) ground = "none";
  plane = planeCard();
  const side = h("div"), picture = pictureCard();
  side.append(picture);
  root.replaceChildren(h("div", { class: "desk" }, side, plane), pinCard(), h("div", { id: "sliders", class: "card none" }, "Looking for the strongest directions…"));
  drawPins(); drawUnder(); show();
  root.dataset.ready = "picture";
  document.addEventListener("keydown", (event) => {
    if (/INPUT|SELECT|TEXTAREA/.test(event.target.tagName) || event.ctrlKey || event.metaKey) return;
    if (event.key === "p") pin();
    if (event.key === "n") fresh(Math.floor(Math.random() * 1e6));
  });
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => { event.preventDefault(); if (about.encodes || about.projects) photograph(event.dataTransfer.files[0]); else say("This model has no encoder, and a search through its solver would take too long."); });
  await loadMap(true);
  const answer = await tried(() => ask("directions"));
  if (answer) {
    const numbers = new Float32Array(answer.content);
    directions = answer.header.directions.map((one, i) => ({ ...one, vector: numbers.slice(i * about.latent, (i + 1) * about.latent) }));
  }
  document.getElementById("sliders").replaceWith(sliderCard());
  fillAxes();
  // Two latents are a plane already; of more, the widest plane of encoded images, else the strongest directions.
  if (about.latent > 2 && directions.length > 1) {
    const first = Math.max(directions.findIndex((d) => d.name === "component 1"), 0);
    setPlane(`d${first}`, `d${first + 1}`); fillAxes();
    if (!about.maps) { span = about.latent > 16 ? 7 : 4; ground = "landscape"; fillAxes(); landscape(); }
  }
  root.dataset.ready = "all";
  new MutationObserver(() => { drawUnder(); drawOver(); }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
}
window.explorer = { latencies, state: () => state, about: () => about, pins };
start().catch((error) => root.replaceChildren(h("p", { class: "warning", role: "alert" }, error.message)));
