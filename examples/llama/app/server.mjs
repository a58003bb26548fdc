// Serves a GGUF model with llama.cpp behind OpenAI's API: GET /health, GET /v1/models, POST /v1/chat/completions.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { basename } from "node:path";
import { getLlama, LlamaChatSession } from "node-llama-cpp";

const BODY_LIMIT = 1 << 20; // bytes of a request
const port = number("PORT", 8000, 1, 65535);
const slots = number("SLOTS", 2, 1, 64); // how many answers are generated at the same time
const queueLimit = number("QUEUE", 32, 0, 10000); // how many requests may wait for a slot
const contextSize = number("CONTEXT", 512, 64, 1 << 20); // tokens of one slot
const threads = number("OMP_NUM_THREADS", 1, 1, 1024); // Penstock sets it to what the manifest's cpu is worth
const modelPath = process.env.MODEL_PATH ?? "/models/model.gguf";
let modelName = basename(modelPath, ".gguf"); // or the name that the file has in its metadata

function number(name, byDefault, min, max) {
  const n = Number(process.env[name] ?? byDefault);
  if (Number.isInteger(n) && n >= min && n <= max) return n;
  console.error(`${name}: want a whole number from ${min} to ${max}, got ${JSON.stringify(process.env[name])}`);
  process.exit(1);
}

class BadRequest extends Error {}

// free are the context's unused sequences; waiting are the requests that want one.
let free, waiting = [];

function take(signal) {
  if (free.length > 0) return Promise.resolve(free.pop());
  if (waiting.length >= queueLimit) return Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    const entry = { resolve };
    waiting.push(entry);
    signal.addEventListener("abort", () => {
      waiting = waiting.filter((e) => e !== entry);
      reject(signal.reason);
    }, { once: true });
  });
}

function give(sequence) {
  const next = waiting.shift();
  if (next) next.resolve(sequence);
  else free.push(sequence);
}

async function readAsk(request) {
  let size = 0;
  const parts = [];
  for await (const part of request) {
    size += part.length;
    if (size > BODY_LIMIT) throw new BadRequest(`the request has more than ${BODY_LIMIT} bytes`);
    parts.push(part);
  }
  let ask;
  try {
    ask = JSON.parse(Buffer.concat(parts));
  } catch (bad) {
    throw new BadRequest(`the request is not JSON: ${bad.message}`);
  }
  const messages = ask?.messages;
  if (!Array.isArray(messages) || messages.length === 0) throw new BadRequest("messages: want a list with at least one message");
  messages.forEach((m, i) => {
    if (!["system", "user", "assistant"].includes(m?.role)) throw new BadRequest(`messages[${i}].role: want system, user or assistant, got ${JSON.stringify(m?.role)}`);
    if (typeof m.content !== "string") throw new BadRequest(`messages[${i}].content: want a text, got ${JSON.stringify(m.content)}`);
  });
  if (messages.at(-1).role !== "user") throw new BadRequest(`messages[${messages.length - 1}].role: want user for the last message`);
  const limit = ask.max_completion_tokens ?? ask.max_tokens ?? 64;
  if (!Number.isInteger(limit) || limit < 1 || limit > contextSize) throw new BadRequest(`max_tokens: want a whole number from 1 to ${contextSize}, got ${JSON.stringify(limit)}`);
  const temperature = ask.temperature ?? 0;
  if (typeof temperature !== "number" || temperature < 0 || temperature > 2) throw new BadRequest(`temperature: want a number from 0 to 2, got ${JSON.stringify(temperature)}`);
  return { messages, limit, temperature, seed: Number.isInteger(ask.seed) ? ask.seed : undefined, stream: ask.stream === true };
}

function history(messages) {
  return messages.map(({ role, content }) =>
    role === "assistant" ? { type: "model", response: [content] } : { type: role, text: content });
}

async function complete(request, response) {
  const ask = await readAsk(request);
  const gone = new AbortController(); // when the client leaves, its slot is free for the next
  response.on("close", () => gone.abort(new Error("the client left")));
  const sequence = await take(gone.signal);
  if (!sequence) return fail(response, 429, "all slots are in use and the queue is full");
  const answer = { id: `chatcmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model: modelName };
  const event = (delta, reason) => response.write(`data: ${JSON.stringify({ ...answer, object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: reason }] })}\n\n`);
  const before = sequence.tokenMeter.getState();
  const session = new LlamaChatSession({ contextSequence: sequence });
  try {
    await sequence.clearHistory();
    session.setChatHistory(history(ask.messages.slice(0, -1)));
    if (ask.stream) {
      response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
      event({ role: "assistant", content: "" }, null);
    }
    const { responseText, stopReason } = await session.promptWithMeta(ask.messages.at(-1).content, {
      maxTokens: ask.limit, temperature: ask.temperature, seed: ask.seed, signal: gone.signal, trimWhitespaceSuffix: false,
      onTextChunk: ask.stream ? (text) => text && event({ content: text }, null) : undefined,
    });
    const reason = stopReason === "maxTokens" ? "length" : "stop";
    if (ask.stream) {
      event({}, reason);
      response.end("data: [DONE]\n\n");
      return;
    }
    const used = sequence.tokenMeter.diff(before);
    send(response, 200, {
      ...answer, object: "chat.completion",
      choices: [{ index: 0, message: { role: "assistant", content: responseText }, finish_reason: reason }],
      usage: { prompt_tokens: used.usedInputTokens, completion_tokens: used.usedOutputTokens, total_tokens: used.usedInputTokens + used.usedOutputTokens },
    });
  } finally {
    session.dispose({ disposeSequence: false });
    give(sequence);
  }
}

function send(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body) + "\n");
}

function fail(response, status, message) {
  send(response, status, { error: { message, type: status < 500 && status !== 429 ? "invalid_request_error" : "server_error", param: null, code: null } });
}

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const route = `${request.method} ${pathname}`;
  if (route === "GET /health") return free ? send(response, 200, { status: "ok" }) : send(response, 503, { status: "loading model" });
  if (route === "GET /v1/models") return send(response, 200, { object: "list", data: [{ id: modelName, object: "model", created: 0, owned_by: "me" }] });
  if (route !== "POST /v1/chat/completions") return fail(response, 404, `no such address: ${route}`);
  if (!free) return fail(response, 503, "the model is being loaded");
  complete(request, response).catch((bad) => {
    if (response.destroyed) return; // the client left
    if (!(bad instanceof BadRequest)) console.error(bad);
    if (response.headersSent) response.destroy(bad);
    else fail(response, bad instanceof BadRequest ? 400 : 500, bad.message);
  });
});
// The port opens before the model is loaded, so that probes can tell loading from failing.
server.listen(port, () => console.log(`listening on ${port}`));
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => server.close(() => process.exit(0)));

const began = performance.now();
const llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: "warn" });
const model = await llama.loadModel({ modelPath });
modelName = model.fileInfo.metadata?.general?.name ?? modelName;
const context = await model.createContext({ sequences: slots, contextSize, threads });
free = Array.from({ length: slots }, () => context.getSequence());
console.log(`loaded ${modelName} in ${((performance.now() - began) / 1000).toFixed(1)} s; ${slots} slots of ${contextSize} tokens, ${threads} threads`);
