// The network, beside the page so that it stays usable: decoding, squashing and the answer.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { squash } from "./squash.js";

const MOST_PIXELS = 64e6;

ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
// Several threads need headers that a plain server of files does not send.
ort.env.wasm.numThreads = 1;

const start = (async () => {
  const model = await (await fetch("model.json")).json();
  const weights = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
  return { model, session: await ort.InferenceSession.create(weights, { executionProviders: ["wasm"] }) };
})();

start.then(
  ({ model }) => postMessage({ kind: "ready", model }),
  (error) => postMessage({ kind: "failed", message: `The network can't be loaded (${error.message}). Load the page again.` }),
);

// One photo after the other: the runtime takes no two at a time.
let last = start;
onmessage = ({ data: file }) => {
  last = last.then(() => read(file)).catch((error) => postMessage({ kind: "failed", message: message(error) }));
};

async function read(file) {
  const { model, session } = await start;
  const photo = await createImageBitmap(file, { premultiplyAlpha: "none" });
  if (photo.width * photo.height > MOST_PIXELS) throw new RangeError("The photo has too many pixels. Use a smaller one.");
  const canvas = new OffscreenCanvas(photo.width, photo.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  // What is transparent becomes white, as in the app.
  context.fillStyle = "white";
  context.fillRect(0, 0, photo.width, photo.height);
  context.drawImage(photo, 0, 0);
  const { data } = context.getImageData(0, 0, photo.width, photo.height);
  const { size, interpolation, name } = model.input;
  const pixels = squash(data, photo.width, photo.height, size, interpolation);
  const answers = await session.run({ [name]: new ort.Tensor("uint8", pixels, [1, size, size, 3]) });
  postMessage({
    kind: "answer",
    logits: [...answers.logits.data],
    probabilities: [...answers.probabilities.data],
  });
}

function message(error) {
  if (error instanceof RangeError) return error.message;
  return error.name === "InvalidStateError" || error.name === "EncodingError"
    ? "This file is no photo that the browser can read. Use a JPEG, PNG or WebP file."
    : `The photo can't be read (${error.message}).`;
}
