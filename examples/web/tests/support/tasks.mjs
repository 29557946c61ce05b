// How long the page's own thread is at work at a time, from the browser's trace.
//
// What counts is the thread's processor time in each task of its loop. The time on the clock would also count what the machine's other
// programs, the worker and a GPU played by software take from that thread, which no page can do anything about. Waiting does not hide
// in the difference: browsers forbid blocking waits on a page's thread.
import { ok } from './harness.mjs';

const CATEGORIES = ['disabled-by-default-devtools.timeline', 'blink.user_timing'];
const NAMES = ['firelight-begin', 'firelight-end'];

/**
 * Runs `work`, in which the page marks begin and end (`performance.mark('firelight-begin')`, `…-end`), and gives the tasks of its thread
 * between the marks: `{tasks, cpu, wall}`, the longest in milliseconds.
 */
export async function pageTasks(page, work) {
  const b = page.context().browser();
  await b.startTracing(page, { categories: CATEGORIES });
  let result;
  let trace;
  try {
    result = await work();
    // The answer comes from inside the last task, which is in the trace once it has ended: two more of the page's turns see to that.
    for (let turn = 0; turn < 2; turn++) await page.evaluate(() => new Promise((done) => { setTimeout(done); }));
  } finally {
    trace = await b.stopTracing();
  }
  const events = JSON.parse(trace).traceEvents;
  const [begin, end] = NAMES.map((name) => events.find((e) => e.name === name && e.cat === 'blink.user_timing'));
  ok(begin && end, 'the page marked begin and end');
  const tasks = events.filter((e) => e.name === 'RunTask' && e.pid === begin.pid && e.tid === begin.tid && e.ts + e.dur >= begin.ts && e.ts <= end.ts);
  ok(tasks.length > 0, `a task between the marks, of ${events.length} events`);
  ok(tasks.every((e) => Number.isFinite(e.tdur)), `processor times, not as in ${JSON.stringify(tasks.find((e) => !Number.isFinite(e.tdur)))}`);
  const longest = (key) => Math.max(...tasks.map((e) => e[key])) / 1000;
  return { result, tasks: tasks.length, cpu: longest('tdur'), wall: longest('dur') };
}

/** Milliseconds the page may be at work at a time. */
export const LONGEST = 50;
