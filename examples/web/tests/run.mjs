#!/usr/bin/env node
// Runs browser test suites: run.mjs [SUITE…] [--grep TEXT]. A suite is a folder beside this file with *.test.mjs files.
// Ends with cargo's closing line, which scripts/test.sh counts.
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { runAll, setFilter } from './support/harness.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const args = process.argv.slice(2);
const grep = args.indexOf('--grep');
if (grep >= 0) setFilter(args.splice(grep, 2)[1] ?? '');

const folders = async () => (await readdir(here, { withFileTypes: true }))
  .filter((d) => d.isDirectory() && !['support', 'node_modules'].includes(d.name)).map((d) => d.name);
const known = await folders();
for (const suite of args) {
  if (!known.includes(suite)) { console.error(`no suite is called ${suite}; there are: ${known.join(' ')}`); process.exit(2); }
}
for (const suite of args.length ? args : known.sort()) {
  for (const file of (await readdir(join(here, suite))).filter((f) => f.endsWith('.test.mjs')).sort()) {
    await import(pathToFileURL(join(here, suite, file)).href);
  }
}
process.exit((await runAll()) ? 0 : 1);
