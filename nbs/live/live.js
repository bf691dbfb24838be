// The page around the network: takes a photograph, shows how far it is, compares, and lets the result be saved.
const MOST = 2e6; // pixels; a larger photograph is reduced
const here = name => new URL(name, import.meta.url), demo = document.querySelector(".dmgn-live");
const part = name => demo.querySelector(`[data-part="${name}"]`);
const worker = new Worker(here("worker.js"), { type: "module" });
let busy = false;

const say = text => { part("status").textContent = text; };

function canvasOf(width, height) { return Object.assign(document.createElement("canvas"), { width, height }); }

async function opened(blob) {
  const image = await createImageBitmap(blob).catch(() => null);
  if (!image) throw new Error("This file is no picture that your browser can open: expected JPEG, PNG, WebP or AVIF.");
  const scale = Math.min(1, Math.sqrt(MOST / (image.width * image.height)));
  const canvas = canvasOf(...[image.width, image.height].map(side => Math.max(1, Math.round(side * scale))));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return { canvas, picture: context.getImageData(0, 0, canvas.width, canvas.height), reduced: scale < 1 };
}

// What the worker answers; it sends each tile as soon as it is there
function answer(picture, onTile) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.error) reject(new Error(`The network could not run: ${data.error}`));
      else if (data.result) resolve(data);
      else onTile(data);
    };
    worker.onerror = event => reject(new Error(`The network could not run: ${event.message ?? "this browser is too old"}`));
    worker.postMessage({ model: here("small-any.onnx").href, picture });
  });
}

function compare() { part("after").style.clipPath = `inset(0 0 0 ${part("slider").value}%)`; }

function clear() {
  for (const picture of [...part("pictures").children]) { URL.revokeObjectURL(picture.src); picture.remove(); }
}

// The photograph, on which the tiles appear; returns what to do with a tile
function watch(photograph, what) {
  const canvas = canvasOf(photograph.width, photograph.height), context = canvas.getContext("2d"), begun = performance.now();
  context.drawImage(photograph, 0, 0);
  clear();
  part("pictures").append(canvas);
  part("view").hidden = false;
  part("compare").hidden = true;
  return ({ done, of, tile, x, y }) => {
    context.putImageData(tile, x, y);
    Object.assign(part("progress"), { value: done, max: of });
    const left = (performance.now() - begun) / 1000 / done * (of - done);
    say(`Restoring ${what}: ${done} of ${of} tiles, about ${Math.ceil(left)} s left.`);
  };
}

async function show(canvases) {
  clear();
  for (const [name, { canvas, alt }] of Object.entries(canvases)) {
    const blob = await new Promise(resolve => canvas.toBlob(resolve, "image/png"));
    const image = Object.assign(new Image(canvas.width, canvas.height), { src: URL.createObjectURL(blob), alt });
    image.dataset.part = name;
    part("pictures").append(image);
  }
  part("download").href = part("after").src;
  part("compare").hidden = false;
  compare();
}

async function restore(blob, name) {
  if (busy) return;
  busy = true;
  Object.assign(part("progress"), { value: 0, max: 1, hidden: false });
  try {
    const { canvas, picture, reduced } = await opened(blob), { width, height } = canvas;
    const size = `${width} x ${height} pixels${reduced ? ", reduced to two megapixels" : ""}`;
    say(`Restoring ${name}, ${size} ...`);
    const { result, build, seconds } = await answer(picture, watch(canvas, `${name}, ${size}`));
    const after = canvasOf(width, height);
    after.getContext("2d").putImageData(result, 0, 0);
    part("download").download = `${name.replace(/\.[^.]*$/, "")}_restored.png`;
    await show({ before: { canvas, alt: "The photograph as it was" },
      after: { canvas: after, alt: "The photograph, restored" } });
    const on = build === "webgpu" ? "WebGPU" : "WebAssembly", each = seconds / (width * height / 1e6);
    say(`Restored ${name}, ${size}, in ${seconds.toFixed(1)} s with ${on}: ${each.toFixed(1)} s a megapixel.`);
  } catch (error) {
    say(error.message);
    if (part("pictures").querySelector("canvas")) part("view").hidden = true; // half done
  }
  part("progress").hidden = true;
  busy = false;
}

const take = files => { if (files.length) restore(files[0], files[0].name); };
part("file").onchange = ({ target }) => { take(target.files); target.value = ""; };
part("slider").oninput = compare;
demo.ondragover = event => { event.preventDefault(); demo.classList.add("over"); };
demo.ondragleave = () => demo.classList.remove("over");
demo.ondrop = event => { event.preventDefault(); demo.classList.remove("over"); take(event.dataTransfer.files); };
for (const button of demo.querySelectorAll("[data-example]")) button.onclick = async () => {
  const response = await fetch(here(button.dataset.example)).catch(() => null);
  if (response?.ok) restore(await response.blob(), button.dataset.example);
  else say(`${button.dataset.example} could not be fetched.`);
};
part("controls").hidden = false;
say("Nothing is uploaded: the network comes to your browser.");
