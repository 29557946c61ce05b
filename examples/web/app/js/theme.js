// A plain script in the head: the chosen colours are there before the first paint.
(() => {
  let theme = null;
  try { theme = localStorage.getItem('firelight-theme'); } catch { /* storage is switched off */ }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();
