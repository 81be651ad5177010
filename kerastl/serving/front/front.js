"use strict";
// The page of `kerastl serve`: an image goes to `predict`, and the answer is shown. Where the
// network looks is found by occlusion: the image is asked again with one square after another gray.
const LONGEST = 512, GRID = 6, KINDS = {classes: "probability", labels: "probability", values: "value"};
const at = (id) => document.getElementById(id);
let newest = 0;

function say(text) { at("status").textContent = text; }

async function ask(blobs, top) {
  const form = new FormData();
  blobs.forEach((blob, index) => form.append("file", blob, `${index}.png`));
  const answer = await fetch(`predict?top=${top}`, {method: "POST", body: form});
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told.predictions;
}

function encoded(canvas) {
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

async function show(file) {
  const turn = ++newest;
  say("Asking ...");
  at("result").hidden = true;
  try {
    const [answer] = await ask([file], 5);
    const bitmap = await createImageBitmap(file).catch(() => null);
    if (turn !== newest) return;
    draw(bitmap);
    tell(answer);
    say("");
  } catch (error) {
    if (turn === newest) say(`No answer: ${error.message}`);
  }
}

function draw(bitmap) {
  const canvas = at("picture");
  at("where").hidden = true;
  at("look").hidden = bitmap === null;  // such as TIFF, which browsers do not show
  if (bitmap === null) { canvas.width = canvas.height = 1; return; }
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

function tell(answer) {
  const kind = Object.keys(KINDS).find((name) => name in answer);
  const number = KINDS[kind], rows = answer[kind];
  const nameOf = (row) => row.label ?? row.target;
  at("number").textContent = number;
  at("answer").textContent = rows.length ? nameOf(rows[0]) : "No label";
  at("rows").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    for (const text of [nameOf(row), row[number].toFixed(3)]) {
      line.append(Object.assign(document.createElement("td"), {textContent: text}));
    }
    return line;
  }));
  at("look").onclick = () => look(kind, number, rows.length ? nameOf(rows[0]) : null);
  at("look").hidden ||= !rows.length;
  at("result").hidden = false;
}

async function look(kind, number, name) {
  const turn = newest, picture = at("picture"), {width, height} = picture;
  say(`Sending ${GRID * GRID} requests, each with a different part covered ...`);
  const whole = [picture], cells = [];
  for (let index = 0; index < GRID * GRID; index++) {
    const cell = [Math.floor((index % GRID) * width / GRID), Math.floor(Math.floor(index / GRID) * height / GRID),
                  Math.ceil(width / GRID), Math.ceil(height / GRID)];
    const covered = Object.assign(document.createElement("canvas"), {width, height});
    const paint = covered.getContext("2d");
    paint.drawImage(picture, 0, 0);
    paint.fillStyle = "gray";
    paint.fillRect(...cell);
    whole.push(covered);
    cells.push(cell);
  }
  try {
    const answers = await ask(await Promise.all(whole.map(encoded)), 100000);
    if (turn !== newest) return;
    const numbers = answers.map((one) => one[kind].find((row) => (row.label ?? row.target) === name)[number]);
    paintMap(numbers.slice(1).map((one) => numbers[0] - one), cells, number, name);
    say("");
  } catch (error) {
    if (turn === newest) say(`No answer: ${error.message}`);
  }
}

function paintMap(falls, cells, number, name) {
  const picture = at("picture"), map = at("map"), most = Math.max(...falls);
  Object.assign(map, {width: picture.width, height: picture.height});
  const paint = map.getContext("2d");
  paint.drawImage(picture, 0, 0);
  cells.forEach((cell, index) => {
    const share = most > 0 ? Math.max(0, falls[index] / most) : 0;
    paint.fillStyle = `rgb(255 40 0 / ${0.65 * share})`;
    paint.fillRect(...cell);
  });
  at("legend").textContent = most > 0
    ? `Red: covering this square lowers the ${number} of ${name}, by up to ${most.toFixed(3)}.`
    : `Covering any one square does not lower the ${number} of ${name}.`;
  at("where").hidden = false;
}

async function film() {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
    const video = at("video");
    video.srcObject = stream;
    video.hidden = at("take").hidden = false;
    await video.play();
    at("take").onclick = async () => {
      const canvas = Object.assign(document.createElement("canvas"),
                                   {width: video.videoWidth, height: video.videoHeight});
      canvas.getContext("2d").drawImage(video, 0, 0);
      stream.getTracks().forEach((track) => track.stop());
      video.hidden = at("take").hidden = true;
      show(await encoded(canvas));
    };
  } catch (error) {
    say(`Cannot use the camera: ${error.message}. Browsers allow it on this machine or over HTTPS.`);
  }
}

at("camera").hidden = !navigator.mediaDevices;
at("camera").onclick = film;
at("file").onchange = (event) => event.target.files[0] && show(event.target.files[0]);
addEventListener("paste", (event) => event.clipboardData.files[0] && show(event.clipboardData.files[0]));
addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
});
