// A helper of the engine: an instance of its module that computes the rows it holds. After its start it hears nothing but requests in the
// shared memory, and ends when they say so.

import { SPINS, WORD, views } from './threads.js';

self.onmessage = async ({ data: { code, script, shared, helper } }) => {
  const { control, request, reply } = views(shared, helper);
  let engine;
  let memory;
  try {
    const module = await import(script);
    ({ memory } = await module.default({ module_or_path: code }));
    engine = new module.Helper();
    // Held as long as this worker lives, as the engine's is.
    await new Promise((held) => (navigator.locks ? navigator.locks.request(`firelight-helper-${crypto.randomUUID()}`, () => (held(), new Promise(() => {}))) : held()));
    // Heard before the loop begins: the message is on its way at once.
    postMessage({});
  } catch (e) {
    return postMessage({ failed: e.message });
  }
  for (let seen = 0;;) {
    for (let i = 0; i < SPINS && Atomics.load(control, WORD.asked) === seen; i++);
    if (Atomics.load(control, WORD.asked) === seen) {
      Atomics.store(control, WORD.asleep, 1);
      while (Atomics.load(control, WORD.asked) === seen) Atomics.wait(control, WORD.asked, seen);
      Atomics.store(control, WORD.asleep, 0);
    }
    seen = Atomics.load(control, WORD.asked);
    // Not a number of requests: a request that follows at once would pass over it.
    if (Atomics.load(control, WORD.ended)) return self.close();
    try {
      const length = control[WORD.length];
      const at = engine.room(length);
      new Uint8Array(memory.buffer, at, length).set(request.subarray(0, length));
      const replied = engine.answer(length);
      reply.set(new Uint8Array(memory.buffer, engine.reply(), replied));
      control[WORD.replied] = replied;
    } catch {
      control[WORD.replied] = -1;
    }
    control[WORD.heap] = memory.buffer.byteLength / 65536;
    Atomics.store(control, WORD.done, seen);
    if (Atomics.load(control, WORD.waiting)) Atomics.notify(control, WORD.done);
  }
};
