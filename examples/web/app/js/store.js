// Conversations, kept in this browser (IndexedDB). Where that is switched off they live as long as the page, and the page says so.

const DB = 'firelight';
const STORE = 'conversations';

let opened = null;
let memory = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DB, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('another tab holds an older version open'));
  });
  return opened;
}

/** Runs one request; falls back to memory for good when the database cannot be used. */
async function run(mode, ask, instead) {
  if (!memory) {
    try {
      const db = await open();
      return await new Promise((resolve, reject) => {
        const transaction = db.transaction(STORE, mode);
        const request = ask(transaction.objectStore(STORE));
        transaction.oncomplete = () => resolve(request.result);
        transaction.onerror = transaction.onabort = () => reject(transaction.error ?? request.error);
      });
    } catch (e) {
      memory = new Map();
      store.failure = e?.message ?? String(e);
    }
  }
  return instead(memory);
}

export const store = {
  /** Why nothing is kept beyond this page; null when it is. */
  failure: null,

  /** All conversations, the latest first. */
  async list() {
    const all = await run('readonly', (s) => s.getAll(), (m) => [...m.values()]);
    return all.sort((a, b) => b.updated - a.updated);
  },
  save: (conversation) => run('readwrite', (s) => s.put(conversation), (m) => m.set(conversation.id, conversation)),
  remove: (id) => run('readwrite', (s) => s.delete(id), (m) => m.delete(id)),
  clear: () => run('readwrite', (s) => s.clear(), (m) => m.clear()),
};

/** A new conversation. `windowFrom`: the first message that the model still sees; `summary`: of those before it. */
export const newConversation = () => {
  const now = Date.now();
  return { id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`, title: '', created: now, updated: now, messages: [], windowFrom: 0, summary: '' };
};

/** A title from the first question. */
export function titleFrom(text) {
  const line = text.trim().split('\n')[0].replace(/\s+/g, ' ');
  return line.length > 48 ? `${line.slice(0, 47).trimEnd()}…` : line;
}

/** The conversation as Markdown. */
export function asMarkdown(c) {
  const parts = [`# ${c.title || 'Conversation'}`];
  for (const m of c.messages) {
    const files = [...(m.images ?? []).map(() => '[picture]'), ...(m.audio ? ['[sound]'] : [])].join(' ');
    parts.push(`## ${m.role === 'user' ? 'You' : m.model || 'Answer'}`, [files, m.text].filter(Boolean).join('\n\n'));
  }
  return `${parts.join('\n\n')}\n`;
}

const dataUrl = (blob) => new Promise((resolve) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => resolve(null);
  reader.readAsDataURL(blob);
});

/** Conversations as JSON, pictures and sound included. */
export async function asJson(conversations) {
  const message = async (m) => ({
    ...m,
    images: m.images && await Promise.all(m.images.map(dataUrl)),
    audio: m.audio && { name: m.audio.name, seconds: m.audio.seconds, data: await dataUrl(m.audio.blob) },
  });
  const whole = async (c) => ({ ...c, messages: await Promise.all(c.messages.map(message)) });
  return JSON.stringify({ format: 'firelight-conversations', version: 1, conversations: await Promise.all(conversations.map(whole)) }, null, 1);
}

/** Conversations of an exported file, with new identities where there is one of the same already. Throws if it is none. */
export async function fromJson(text, known) {
  const data = JSON.parse(text);
  if (data?.format !== 'firelight-conversations' || !Array.isArray(data.conversations)) throw new Error('this is not an export of Firelight');
  const blob = (url, kind) => {
    const m = /^data:([\w/+.-]+)[^,]*;base64,([A-Za-z0-9+/=]*)$/.exec(String(url));
    return m && m[1].startsWith(kind) ? new Blob([Uint8Array.from(atob(m[2]), (c) => c.charCodeAt(0))], { type: m[1] }) : null;
  };
  const string = (x) => (typeof x === 'string' ? x : '');
  // Field by field: a file from elsewhere gets nothing into the page but these.
  return data.conversations.map((c) => {
    const fresh = newConversation();
    const messages = (Array.isArray(c.messages) ? c.messages : []).filter((m) => ['user', 'assistant'].includes(m?.role)).map((m) => ({
      id: crypto.randomUUID?.() ?? String(Math.random()), role: m.role, text: string(m.text), model: string(m.model), time: Number(m.time) || fresh.created,
      status: 'done', heard: m.heard === true || undefined, plain: m.plain === true || undefined,
      images: Array.isArray(m.images) ? m.images.map((u) => blob(u, 'image/')).filter(Boolean) : undefined,
      audio: m.audio && blob(m.audio.data, 'audio/') ? { blob: blob(m.audio.data, 'audio/'), name: string(m.audio.name), seconds: Number(m.audio.seconds) || 0 } : undefined,
    }));
    const id = typeof c.id === 'string' && !known.has(c.id) ? c.id : fresh.id;
    return { ...fresh, id, title: string(c.title), updated: Number(c.updated) || fresh.updated, messages };
  });
}
