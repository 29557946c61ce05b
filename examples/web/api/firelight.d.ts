// Types of the browser API. See firelight.js for a first example.

export type Rung = 'gpu-f16-subgroups' | 'gpu-f16' | 'gpu-f32' | 'cpu' | 'cpu-simd' | 'cpu-scalar';

export type ErrorCode =
  | 'unsupported' | 'invalid_input' | 'malformed' | 'limit' | 'quota' | 'memory' | 'network' | 'not_found' | 'checksum'
  | 'device' | 'bad_logits' | 'cancelled' | 'no_model' | 'unfinished' | 'worker_lost' | 'disposed' | 'internal';

export class FirelightError extends Error {
  readonly code: ErrorCode;
  /** What the user or the page could do about it; may be empty. */
  readonly remedy: string;
  /** Figures, in bytes: `{needed, available}` for `quota` and `memory`; `{status, url}` for `network`. */
  readonly details?: { needed?: number; available?: number; status?: number; url?: string };
  constructor(code: ErrorCode, message: string, remedy?: string, details?: object);
}

export interface CreateOptions {
  /** The worker's script; default: `worker.js` beside `firelight.js`. */
  workerUrl?: string | URL;
  /** Folder of the compiled engine; default: `../engine/` from the worker. */
  engineUrl?: string | URL;
  /** The site's list of models; default: `models/index.json` beside the page. */
  modelsUrl?: string | URL;
  /** `auto` (default): a real GPU if it answers right, else the CPU. `gpu`: also one that software imitates. */
  device?: 'auto' | 'gpu' | 'cpu';
  /**
   * `text` (default): the small engine. What it cannot do (`schema`, pictures, embedding models) makes it give way to the one with everything,
   * which is about a megabyte more to download. `everything`: that one from the start.
   */
  parts?: 'text' | 'everything';
  /** Exactly this rung. */
  rung?: Rung;
  /**
   * Threads of the processor's rung, 1 to 16, where the page is cross-origin isolated (elsewhere there is one). Default: half of the cores, at
   * least two and at most four, which rest while other programs have the cores; a number given is kept to. Each thread but the first keeps a copy of its share of the weights, and computes the same to the bit.
   */
  threads?: number;
  /**
   * `exact`: f32 activations on the CPU; `fast`: 8-bit ones for prompts too; `software`: with `auto`, take a GPU that software
   * imitates as well, the CPU below it; `selfTest: false`: take the device without the proof that its kernels compute right (for tests:
   * a GPU that computes wrong would then answer wrong).
   */
  engine?: { exact?: boolean; fast?: boolean; software?: boolean; selfTest?: boolean };
  /** Called when the device is chosen, and again when the engine moves to another. */
  onDevice?: (report: DeviceReport) => void;
}

export interface ModelFile {
  /** Its name in the model's folder (`model.gguf`, `tokenizer.json`); default: the last part of `url`. */
  name?: string;
  /** Relative URLs count from where the list of models is (a spec given in code: from the page). */
  url: string;
  /** Bytes. */
  size: number;
  /** 64 lower-case hex digits. */
  sha256: string;
  /** Optional sha256 per `chunkSize` bytes, so that damage is noticed and mended chunk by chunk. */
  chunks?: string[];
  chunkSize?: number;
}

/** A model as `models/index.json` (`{"models": [ModelSpec]}`) lists it. */
export interface ModelSpec {
  name: string;
  files: ModelFile[];
  title?: string;
  task?: string;
  family?: string;
  licence?: string;
  licence_url?: string;
  /** Longest context, tokens. */
  context?: number;
  notes?: string;
}

export interface Progress {
  /** `processor`: tokenizer and configuration; `weights`: download or storage to device; `compiling`: pipelines and warm-up. */
  phase: 'processor' | 'weights' | 'compiling';
  /** Bytes over all files; never goes back. */
  loaded: number;
  total: number;
  /** 0 to 1 over all phases; never goes back. */
  fraction: number;
  /** Smoothed; 0 when nothing is downloaded. */
  bytesPerSecond: number;
  /** `null` while unknown. */
  etaSeconds: number | null;
  /** True when no byte comes from the network. */
  fromCache: boolean;
}

export interface LoadOptions {
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
  /** Check stored files against their hashes first (default true). */
  verify?: boolean;
}

export interface ModelInfo {
  name: string;
  family: string;
  /** Longest context, tokens. */
  context: number;
  vocab: number;
  /** False for a base model: it has no chat template. */
  chat: boolean;
  /** It gives vectors (`embed`) and writes no text. */
  embed: boolean;
  /** It writes down what is said (`transcribe`, `listen`). */
  transcribe: boolean;
  /** Elements of a vector, of a model that gives them. */
  dims?: number;
  weightBytes: number;
  loadMs: number;
  fromCache: boolean;
  /** Bytes fetched in this call. */
  downloaded: number;
  /** What a message may carry beside text. */
  accepts: { images: boolean; audio: boolean };
}

export interface Message {
  role: 'system' | 'user' | 'assistant' | 'tool' | string;
  content: string | Array<{ type: string; text?: string }>;
}

export interface ChatOptions {
  signal?: AbortSignal;
  /** Put before the messages if they have no system message. */
  system?: string;
  maxTokens?: number;
  /** Choose the likeliest token every time. */
  greedy?: boolean;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  /** Same seed, same answer on the same rung. */
  seed?: number;
  stop?: string[];
  /** Positions at most; default: the model's context. */
  context?: number;
  /**
   * Encoded pictures (PNG, JPEG, WebP, GIF), in the order of the `{type: 'image'}` parts of the messages; `unsupported` unless
   * `ModelInfo.accepts.images`.
   */
  images?: Array<Blob | ArrayBuffer>;
  /** Encoded sound; `unsupported` unless `ModelInfo.accepts.audio`. */
  audio?: Blob | ArrayBuffer;
  /** A JSON schema that the answer fulfils; `unfinished` if `maxTokens` end it before. */
  schema?: object;
  /** Text to continue instead of a conversation (base models). */
  prompt?: string;
  /** Go on after the model’s end-of-text ids: for tests and measurements. */
  ignoreEos?: boolean;
}

export interface EmbedOptions {
  signal?: AbortSignal;
  /** The name of a prompt of the model's files (`query`), or the text itself, put before every text. */
  prompt?: string;
  /** Vectors of length 1; default: what the model's files say. */
  normalize?: boolean;
  /** Tokens of the longest text; default: what the model's files say. */
  maxTokens?: number;
  /** What happens to longer texts: cut (default), their pieces' mean, or an error. */
  long?: 'truncate' | 'mean' | 'refuse';
}

export interface Embeddings {
  /** One per text, `dims` elements each. */
  vectors: Float32Array[];
  dims: number;
  /** Tokens of each text that went into its vector. */
  tokens: number[];
  /** How many texts were cut. */
  truncated: number;
}

export interface PreprocessOptions {
  signal?: AbortSignal;
  /** Whose rounding to equal; default: torchvision's, Pillow's for a class whose name ends in `Pil`. */
  reference?: 'torchvision' | 'pillow';
}

export interface Tensor {
  name: string;
  dtype: 'f32' | 'i64' | 'bool';
  shape: number[];
  data: Float32Array | BigInt64Array | Uint8Array;
}

export interface Preprocessed {
  /** Every tensor of the reference's processor, under its names and in its order. */
  tensors: Tensor[];
  /** What became of each picture. */
  images: Array<{
    width: number;
    height: number;
    resized: [number, number];
    /** Inputs of the vision tower: tiles and the view of the whole; else 1. */
    inputs: number;
    /** Tokens in a prompt, where they are known without the model's own configuration. */
    tokens: number | null;
  }>;
}

export interface ChatStats {
  promptTokens: number;
  /** Prompt tokens processed; the others were still in the cache. */
  prefilled: number;
  tokens: number;
  ttftMs: number;
  prefillTps: number;
  decodeTps: number;
  /** Processor time outside the GPU per decoded token (encode and submit; on the CPU rung: the whole step). */
  encodeMsPerToken: number;
  /** Positions in use and there at most. */
  contextUsed: number;
  context: number;
}

export type ChatEvent =
  /** Pictures are not counted here, but in the statistics. */
  | { type: 'start'; promptTokens: number }
  /** Pictures were made smaller, so that the conversation fits. */
  | { type: 'scaled'; how: string }
  | { type: 'token'; text: string; ids: number[] }
  /** The device failed; the answer goes on elsewhere. */
  | { type: 'moved'; why: string; device: string; rung: Rung }
  | { type: 'done'; text: string; ids: number[]; finish: 'eos' | 'stop' | 'max_tokens' | 'context' | 'cancelled'; stats: ChatStats };

/** One step of the waterfall. */
export interface Step {
  step: 'secure' | 'webgpu' | 'adapter' | 'limits' | 'features' | 'self-test' | 'cpu';
  ok: boolean;
  /** What was found, in words. */
  what: string;
  /** What the user could do about it. */
  remedy?: string;
}

export interface DeviceReport {
  /** For people: `Apple M2 (webgpu)`. */
  device: string;
  rung: Rung;
  gpu: boolean;
  /** Why this one, in one sentence. */
  reason: string;
  steps: Step[];
  /** Every adapter and rung tried, in order; the last one runs. */
  attempts: Array<{ what: string; rung: Rung; refused: string | null }>;
  adapter: null | {
    name: string; software: boolean; f16: boolean; subgroups: boolean; subgroupSize: [number, number];
    maxBinding: number; maxBuffer: number; features: string[]; limits: Record<string, number>;
  };
  selfTest: null | { kernels: number; cases: number; ms: number };
  /** Which engine runs. */
  parts: 'text' | 'everything';
  simd: 'none' | 'simd128' | 'relaxed';
  threads: number;
  /** Why there are not more; null on a GPU. */
  threadsWhy: string | null;
  /** What the threads besides the first one do: products divided so far, bytes of the weights they keep. */
  sharing: { helpers: number; jobs: number; bytes: number; failed: boolean };
  /** What this engine can do. */
  features: { chat: boolean; images: boolean; audio: boolean; transcribe: boolean; embed: boolean; schema: boolean };
}

export interface MemoryReport {
  /** Device memory by holder, bytes. */
  device: Record<'weights' | 'cache' | 'activations' | 'params' | 'staging' | 'user' | 'pool', number>;
  deviceTotal: number;
  devicePeak: number;
  /** The worker's wasm heap, bytes. It never shrinks. */
  wasmHeap: number;
  /** Those of the threads besides it. */
  helperHeap: number;
  model: string | null;
  storage: { usage: number; quota: number; persisted: boolean };
}

export interface Preflight {
  ok: boolean;
  /** What stands in the way, and what to do; empty if nothing does. */
  problems: Array<{ code: ErrorCode; message: string; remedy: string; details?: object }>;
  /** Bytes still to fetch; 0 when stored. */
  download: number;
  weightBytes: number;
  /** Key/value cache at `context` (capped at 4,096 positions). */
  cacheBytes: number;
  storageAvailable: number;
  /** `null`: the browser does not say. */
  memoryAvailable: number | null;
  /** Estimates from a one-second synthetic run; `null` if it could not run. */
  decodeTps: number | null;
  prefillTps: number | null;
  /** A smaller model of the list, if this one does not fit. */
  smaller: string | null;
}

export interface CachedModel {
  name: string;
  bytes: number;
  total: number;
  complete: boolean;
  /** False if the list now names other files under this name: an old version. */
  current: boolean;
  lastUsed: number;
}

export interface SpeechOptions {
  signal?: AbortSignal;
  /** What is said in its language (default), or in English. */
  task?: 'transcribe' | 'translate';
  /** Code of the language (`en`, `de`, …); without it the model decides. */
  language?: string;
  /** What came before: names, spelling, style. */
  prompt?: string;
  /** Words to be expected. */
  hotwords?: string;
}

export interface Segment {
  /** Seconds. */
  start: number;
  end: number;
  text: string;
  /** Of models that give times (Whisper). */
  tokens?: number[];
  temperature?: number;
  logprob?: number;
  words?: Array<{ text: string; start: number; end: number; probability: number }>;
}

export interface TranscribeOptions extends SpeechOptions {
  /** Times of segments (default), of words as well, or none. */
  timestamps?: 'none' | 'segment' | 'word';
  /** Leave out what is no speech before the model hears it. */
  vad?: boolean;
  onEvent?: (event:
    | { type: 'language'; language: string; probability: number }
    | { type: 'segment'; segment: Segment }
    | { type: 'progress'; done: number; total: number | null }
    | { type: 'moved'; why: string }) => void;
}

export interface Transcript {
  text: string;
  language: string | null;
  languageProbability: number | null;
  /** Seconds. */
  duration: number;
  segments: Segment[];
}

export interface ListenOptions extends SpeechOptions {
  /** Seconds of new sound between partial texts (default 1); 0: none. */
  partial?: number;
  /** Seconds of silence that end what is being said (default 0.5). */
  pause?: number;
  /** Hz of the samples that will be pushed (default 16000). */
  rate?: number;
  onEvent?: (event:
    | { type: 'start'; start: number }
    | { type: 'partial' | 'final'; text: string; start: number; end: number; workMs: number }) => void;
}

export interface Listening {
  /** Hz of the samples that `push` takes. */
  rate: number;
  /** Mono samples of ±1. Resolves when they have been heard. */
  push(samples: Float32Array): Promise<void>;
  /** Ends what is being said. */
  finish(): Promise<void>;
}

export class Firelight {
  private constructor(options: CreateOptions);
  static create(options?: CreateOptions): Promise<Firelight>;
  load(model: string | ModelSpec, options?: LoadOptions): Promise<ModelInfo>;
  chat(messages: Message[], options?: ChatOptions): AsyncGenerator<ChatEvent>;
  countTokens(messages: Message[]): Promise<{ tokens: number; context: number }>;
  transcribe(sound: Blob | ArrayBuffer, options?: TranscribeOptions): Promise<Transcript>;
  listen(options?: ListenOptions): Promise<Listening>;
  /** What a model's front end makes of a recording: `input_features`, and `input_features_mask` where frames may be padding. */
  features(sound: Blob | ArrayBuffer, frontEnd: 'whisper80' | 'whisper128' | 'gemma4' | 'kaldi80' | object, options?: { signal?: AbortSignal }): Promise<Tensor[]>;
  embed(texts: string[], options?: EmbedOptions): Promise<Embeddings>;
  /** Pictures as the tensors of an image processor. No model is needed. */
  preprocess(images: Blob | ArrayBuffer | Array<Blob | ArrayBuffer>, config: object | string, options?: PreprocessOptions): Promise<Preprocessed>;
  device(): Promise<DeviceReport>;
  memory(): Promise<MemoryReport>;
  preflight(model: string | ModelSpec): Promise<Preflight>;
  report(options?: { benchmarks?: boolean }): Promise<object>;
  models(): Promise<ModelSpec[]>;
  cached(): Promise<CachedModel[]>;
  remove(model: string): Promise<void>;
  unload(): Promise<void>;
  dispose(): Promise<void>;
  simulate(what: 'device' | 'memory' | 'worker' | 'helper'): Promise<void>;
}
