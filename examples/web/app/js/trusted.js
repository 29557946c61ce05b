// Imported first. The page's policy demands Trusted Types: a string can become neither markup nor code. The one thing let through is
// the address of a script of this site, for its workers.
if (globalThis.trustedTypes) {
  const base = new URL('.', document.baseURI);
  trustedTypes.createPolicy('default', {
    createScriptURL(text) {
      const url = new URL(text, document.baseURI);
      if (url.origin === base.origin && url.pathname.startsWith(base.pathname)) return text;
      throw new TypeError('scripts come from this site only');
    },
  });
}
