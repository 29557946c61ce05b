// Functions without a page.
import { test, ok, equal } from '../support/harness.mjs';
import * as context from '../../app/js/context.js';
import { ready } from '../../app/js/live.js';
import { wav } from '../../app/js/recorder.js';
import * as format from '../../app/js/format.js';

const talk = (n, length = 300) => Array.from({ length: n }, (_, i) => ({ role: i % 2 ? 'assistant' : 'user', text: 'x'.repeat(length) }));

test('context: a conversation that fits is left alone', () => {
  equal(context.windowStart(talk(5), { from: 0, fixed: 0, room: 8000 }), 0);
  equal(context.windowStart(talk(5), { from: 2, fixed: 0, room: 8000 }), 2, 'and never slides back');
});

test('context: the window begins with a question and leaves room for several more', () => {
  const messages = talk(21);
  const cost = context.cost(messages[0]);
  const start = context.windowStart(messages, { from: 0, fixed: 0, room: 10 * cost });
  equal(messages[start].role, 'user');
  const left = (messages.length - start) * cost;
  ok(left <= 10 * cost * context.LOW && left > 2 * cost, `${left} of ${10 * cost}`);
  equal(context.windowStart(messages, { from: start, fixed: 0, room: 10 * cost }), start, 'the next turn does not slide');
});

test('context: the last question stays, however long', () => {
  const messages = [...talk(4), { role: 'user', text: 'y'.repeat(100_000) }];
  equal(context.windowStart(messages, { from: 0, fixed: 0, room: 100 }), 4);
  equal(context.windowStart([{ role: 'user', text: 'y'.repeat(100_000) }], { from: 0, fixed: 0, room: 100 }), 0);
  equal(context.windowStart(talk(5), { from: 0, fixed: 1e6, room: 100 }), 4, 'instructions that fill all of it');
});

test('context: pictures and sound count', () => {
  ok(context.cost({ text: '', images: [1, 2] }) > 512 && context.cost({ text: '', audio: { seconds: 30 } }) > 700);
});

test('context: summary and instructions come first, and failed answers are left out', () => {
  const messages = [{ role: 'user', text: 'a' }, { role: 'assistant', text: '' }, { role: 'user', text: 'b', images: [1] }];
  const list = context.toModel(messages, ' Be brief. ', 'They met.');
  equal(list[0], { role: 'system', content: 'Be brief.\n\nSummary of the conversation so far:\nThey met.' });
  equal(list.slice(1), [{ role: 'user', content: 'a' }, { role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'b' }] }]);
  equal(context.toModel(messages, '', '').length, 2);
});

test('context: the request for a summary has a bound', () => {
  const [{ content }] = context.summaryRequest(talk(40, 4000), 'Before.', 500);
  ok(content.length < 2500, `${content.length}`);
  ok(content.startsWith('Summary of what came before:\nBefore.'));
});

test('live: sentences are said whole', () => {
  equal(ready('A fire needs air. It'), 17);
  equal(ready('A fire needs air.'), 0, 'what follows the dot is not known yet');
  equal(ready('It costs 3.5 coins and'), 0);
  equal(ready('no end in sight'), 0);
  const long = 'word '.repeat(200);
  ok(ready(long) > 300 && ready(long) <= 400 && long[ready(long) - 1] === ' ');
});

test('sound: a WAV file as the standard has it', async () => {
  const bytes = new DataView(await wav(new Float32Array([0, 1, -1, 2, -2])).arrayBuffer());
  equal(bytes.byteLength, 44 + 10);
  equal([bytes.getUint32(4, true), bytes.getUint32(24, true), bytes.getUint32(40, true)], [46, 16000, 10]);
  equal([0, 1, 2, 3, 4].map((i) => bytes.getInt16(44 + 2 * i, true)), [0, 32767, -32767, 32767, -32767], 'what is too loud is cut');
});

test('format: figures for people', () => {
  equal([format.bytes(999), format.bytes(98_362_432), format.bytes(253e6), format.bytes(4.8e9), format.bytes(NaN)], ['999 B', '98.4 MB', '253 MB', '4.80 GB', '?']);
  equal([format.duration(4.2), format.duration(0.1), format.duration(200), format.duration(7500), format.duration(Infinity)], ['4 s', '1 s', '3 min', '2 h 5 min', '']);
  equal([format.clock(7.9), format.clock(61)], ['0:07', '1:01']);
  equal([format.title({ name: 'smollm2-135m-instruct' }), format.title({ name: 'gemma-3-270m' }), format.title({ name: 'x', title: 'Y' }), format.title(null)], ['SmolLM2 135M Instruct', 'Gemma 3 270M', 'Y', '']);
});
