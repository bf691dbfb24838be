// Runs the network, tile by tile, beside the page. What it loads from elsewhere is of one version, and checked.
const CDN = "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/";
const BUILDS = {
  webgpu: [["ort.webgpu.bundle.min.mjs", "sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f"],
    ["ort-wasm-simd-threaded.asyncify.wasm", "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR"]],
  wasm: [["ort.wasm.bundle.min.mjs", "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"],
    ["ort-wasm-simd-threaded.wasm", "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"]],
};
const SIDE = 512, OVERLAP = 64, STEP = 16, LEAST = 64; // pixels: of a tile, shared by neighbours, multiples of, at least

async function fetched(url, integrity) {
  const response = await fetch(url, integrity ? { integrity } : {});
  if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  return response.arrayBuffer();
}

async function begin(build, model) {
  const [code, wasm] = await Promise.all(BUILDS[build].map(([name, integrity]) => fetched(CDN + name, integrity)));
  const ort = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: 1 });
  const session = await ort.InferenceSession.create(model, { executionProviders: [build] });
  return { ort, session, build };
}

// WebGPU where there is one and it can run the network, else WebAssembly
async function beginBest(model) {
  if (self.navigator.gpu && await self.navigator.gpu.requestAdapter()) {
    try { return await begin("webgpu", model); } catch { /* it cannot */ }
  }
  return begin("wasm", model);
}

// Where tiles lie along one axis, and their weights there: as tile_weights of dmgn.restore
function tilesAlong(length) {
  const count = Math.max(1, Math.ceil((length - OVERLAP) / (SIDE - OVERLAP)));
  const side = Math.min(SIDE, Math.ceil((length + (count - 1) * OVERLAP) / count / STEP) * STEP);
  const step = Math.max(STEP, Math.ceil((length - side) / Math.max(1, count - 1) / STEP) * STEP);
  const tiles = Array.from({ length: count }, (_, n) => ({ from: n * step, to: Math.min(n * step + side, length) }));
  const seams = [-Infinity, ...tiles.slice(1).map((tile, n) => (tile.from + tiles[n].to) / 2), Infinity];
  const rise = (n, at) => Math.sin(Math.PI / 2 * Math.min(1, Math.max(0, 2 * (at + 0.5 - seams[n]) / OVERLAP + 0.5))) ** 2;
  return tiles.map((tile, n) => ({ ...tile,
    weight: Float32Array.from({ length: tile.to - tile.from }, (_, k) => rise(n, tile.from + k) - rise(n + 1, tile.from + k)) }));
}

// A tile as the network takes it: planes of red, green and blue from -1 to 1, the last row and column repeated
function planes({ data, width }, rows, columns) {
  const [h, w] = [rows, columns].map(({ from, to }) => Math.max(LEAST, Math.ceil((to - from) / STEP) * STEP));
  const values = new Float32Array(3 * h * w);
  for (let c = 0, k = 0; c < 3; c++) for (let y = 0; y < h; y++) for (let x = 0; x < w; x++, k++) {
    const [row, column] = [Math.min(rows.from + y, rows.to - 1), Math.min(columns.from + x, columns.to - 1)];
    values[k] = data[4 * (row * width + column) + c] / 127.5 - 1;
  }
  return { values, h, w };
}

function addTile(sums, tile, { h, w }, rows, columns, width) {
  for (let c = 0; c < 3; c++) for (let y = rows.from; y < rows.to; y++) for (let x = columns.from; x < columns.to; x++) {
    const weight = rows.weight[y - rows.from] * columns.weight[x - columns.from];
    sums[3 * (y * width + x) + c] += weight * tile[(c * h + y - rows.from) * w + x - columns.from];
  }
}

// From values between -1 and 1, by colour, row and column
function imageOf(width, height, value, alpha = () => 255) {
  const pixels = new Uint8ClampedArray(4 * width * height);
  for (let y = 0, k = 0; y < height; y++) for (let x = 0; x < width; x++, k += 4) {
    for (let c = 0; c < 3; c++) pixels[k + c] = Math.round((value(c, y, x) + 1) * 127.5);
    pixels[k + 3] = alpha(k + 3);
  }
  return new ImageData(pixels, width, height);
}

async function restored({ ort, session }, picture, progress) {
  const { width, height } = picture, sums = new Float32Array(3 * width * height);
  const jobs = tilesAlong(height).flatMap(rows => tilesAlong(width).map(columns => [rows, columns]));
  for (const [done, [rows, columns]] of jobs.entries()) {
    const { values, h, w } = planes(picture, rows, columns);
    const { background } = await session.run({ image: new ort.Tensor("float32", values, [1, 3, h, w]) }, ["background"]);
    const found = await background.getData(), size = [columns.to - columns.from, rows.to - rows.from];
    addTile(sums, found, { h, w }, rows, columns, width);
    const tile = imageOf(...size, (c, y, x) => found[(c * h + y) * w + x]);
    progress({ done: done + 1, of: jobs.length, tile, x: columns.from, y: rows.from });
  }
  return imageOf(width, height, (c, y, x) => sums[3 * (y * width + x) + c], k => picture.data[k]);
}

let running; // the network, once it is there

self.onmessage = async ({ data: { model, picture } }) => {
  try {
    running ??= fetched(model).then(beginBest);
    const network = await running, begun = performance.now();
    const result = await restored(network, picture, progress => self.postMessage(progress));
    self.postMessage({ result, build: network.build, seconds: (performance.now() - begun) / 1000 });
  } catch (error) {
    running = undefined;
    self.postMessage({ error: String(error.message ?? error) });
  }
};
