// Writes a small GGUF model of the llama architecture with random weights. It is untrained: what it says means nothing.
// The same bytes come out each time. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

const out = process.argv[2] ?? new URL("weights/model.gguf", import.meta.url).pathname;
const WIDTH = 256, LAYERS = 4, HEADS = 4, INNER = 512, CONTEXT = 2048, ALIGNMENT = 32;
const U32 = 4, I32 = 5, F32 = 6, STRING = 8, ARRAY = 9; // types of metadata
const FLOAT = 0; // type of tensors

// The vocabulary: three marks, every byte, and words.
const NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6;
const words = ("a an and are as at be but by can do each for from has have if in into is it its let may model more new no not of on " +
  "one or our out over replica request run see server so than that the their then there they this to traffic two up use was we " +
  "weight what when where which will with word you . , ! ?").split(" ");
const tokens = [["<unk>", UNKNOWN], ["<s>", CONTROL], ["</s>", CONTROL]];
for (let b = 0; b < 256; b++) tokens.push([`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`, BYTE]);
tokens.push(["▁", NORMAL]);
for (const w of words) tokens.push([/\w/.test(w) ? "▁" + w : w, NORMAL]);
for (let c = 97; c < 123; c++) tokens.push([String.fromCharCode(c), NORMAL]);

function u32(n) { const b = Buffer.alloc(4); b.writeUInt32LE(n); return b; }
function u64(n) { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(n)); return b; }
function f32(n) { const b = Buffer.alloc(4); b.writeFloatLE(n); return b; }
function text(s) { const b = Buffer.from(s); return Buffer.concat([u64(b.length), b]); }
const write = { [U32]: u32, [I32]: u32, [F32]: f32, [STRING]: text };
function list(type, values) { return Buffer.concat([u32(type), u64(values.length), ...values.map(write[type])]); }

const metadata = [
  ["general.architecture", STRING, "llama"],
  ["general.name", STRING, "untrained"],
  ["general.description", STRING, "random weights, for trying a server"],
  ["general.alignment", U32, ALIGNMENT],
  ["llama.context_length", U32, CONTEXT],
  ["llama.embedding_length", U32, WIDTH],
  ["llama.block_count", U32, LAYERS],
  ["llama.feed_forward_length", U32, INNER],
  ["llama.attention.head_count", U32, HEADS],
  ["llama.attention.head_count_kv", U32, HEADS],
  ["llama.rope.dimension_count", U32, WIDTH / HEADS],
  ["llama.attention.layer_norm_rms_epsilon", F32, 1e-5],
  ["llama.vocab_size", U32, tokens.length],
  ["tokenizer.ggml.model", STRING, "llama"],
  ["tokenizer.ggml.tokens", ARRAY, list(STRING, tokens.map(([t]) => t))],
  ["tokenizer.ggml.scores", ARRAY, list(F32, tokens.map(([t, kind]) => (kind === NORMAL ? t.length : 0)))],
  ["tokenizer.ggml.token_type", ARRAY, list(I32, tokens.map(([, kind]) => kind))],
  ["tokenizer.ggml.unknown_token_id", U32, 0],
  ["tokenizer.ggml.bos_token_id", U32, 1],
  ["tokenizer.ggml.eos_token_id", U32, 2],
];

const tensors = [["token_embd.weight", [WIDTH, tokens.length]], ["output_norm.weight", [WIDTH]], ["output.weight", [WIDTH, tokens.length]]];
for (let i = 0; i < LAYERS; i++) {
  for (const part of ["attn_norm", "ffn_norm"]) tensors.push([`blk.${i}.${part}.weight`, [WIDTH]]);
  for (const part of ["attn_q", "attn_k", "attn_v", "attn_output"]) tensors.push([`blk.${i}.${part}.weight`, [WIDTH, WIDTH]]);
  for (const part of ["ffn_gate", "ffn_up"]) tensors.push([`blk.${i}.${part}.weight`, [WIDTH, INNER]]);
  tensors.push([`blk.${i}.ffn_down.weight`, [INNER, WIDTH]]);
}

// mulberry32, a generator with 32 bits of state.
let state = 1;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

const firstWord = tokens.findIndex(([t]) => t === "▁" + words[0]);
const isWord = (token) => token >= firstWord && token < firstWord + words.length;

const header = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(metadata.length)];
for (const [key, type, value] of metadata) header.push(text(key), u32(type), type === ARRAY ? value : write[type](value));
const bodies = [];
let offset = 0;
for (const [name, shape] of tensors) {
  const count = shape.reduce((a, b) => a * b);
  header.push(text(name), u32(shape.length), ...shape.map(u64), u32(FLOAT), u64(offset));
  const body = Buffer.alloc(count * 4);
  for (let i = 0; i < count; i++) {
    let value = shape.length === 1 ? 1 : (random() - 0.5) * 2 * Math.sqrt(3 / shape[0]);
    // Only words can be said: other outputs are zero, and a word has the largest of many random numbers.
    if (name === "output.weight" && !isWord(Math.floor(i / WIDTH))) value = 0;
    body.writeFloatLE(value, i * 4);
  }
  bodies.push(body);
  offset += body.length; // a multiple of ALIGNMENT, as all shapes are
}
const head = Buffer.concat(header);
mkdirSync(dirname(out), { recursive: true });
writeFileSync(out, Buffer.concat([head, Buffer.alloc((ALIGNMENT - (head.length % ALIGNMENT)) % ALIGNMENT), ...bodies]));
console.log(`wrote ${out}: ${(offset / 4 / 1e6).toFixed(1)} million random parameters, untrained`);
