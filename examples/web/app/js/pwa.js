// The service worker, the offer to install, and what to say when the network is gone.

/** Registers the worker. `onUpdate` when a newer version of the page is ready. */
export async function registerWorker(onUpdate) {
  if (!('serviceWorker' in navigator) || !isSecureContext) return;
  const controlled = navigator.serviceWorker.controller !== null;
  // The first worker takes over quietly; a later one means that the files of this page are old.
  navigator.serviceWorker.addEventListener('controllerchange', () => { if (controlled) onUpdate?.(); });
  await navigator.serviceWorker.register('sw.js').catch(() => { /* blocked by policy or private mode: the page works without */ });
}

/** Has the worker keep the build of the engine that runs, for the time without a network. `report`: the device report. */
export async function keepEngine({ simd, parts }) {
  const build = `engine/${simd === 'relaxed' ? 'relaxed' : 'simd'}${parts === 'everything' ? '-everything' : ''}/`;
  const registration = await navigator.serviceWorker?.ready;
  registration?.active?.postMessage({ keep: build });
}

let offer = null;

/** Calls back when the browser offers to install the page, with a function that asks the user. */
export function onInstallable(fn) {
  addEventListener('beforeinstallprompt', (e) => {
    e.preventDefault();
    offer = e;
    fn(async () => {
      const { outcome } = await offer.prompt();
      return outcome === 'accepted';
    });
  });
}
