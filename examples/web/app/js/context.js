// What of a conversation the model sees. Pure functions: the page counts tokens, this decides.
//
// The window slides in strides: when the conversation no longer fits, it moves to where the messages take LOW of the room. So the
// engine's cache of what it has read stays good for many turns, and a summary is written rarely instead of every time.

/** Share of the room that is used after the window has moved. */
export const LOW = 0.5;

/** Tokens of a text, guessed until the engine has counted. */
export const guess = (text) => Math.ceil(text.length / 3.4) + 6;

/** Tokens of a message, guessed. */
export const cost = (m) => guess(m.text) + 256 * (m.images?.length ?? 0) + Math.ceil(25 * (m.heard ? 0 : m.audio?.seconds ?? 0));

/** Room for messages: what remains of the context beside the answer. */
export const room = (context, maxTokens) => Math.max(64, context - Math.min(maxTokens, Math.floor(context / 2)) - 16);

/**
 * Where the window has to begin. `fixed`: tokens of instructions and summary; `scale`: the engine's count over the guess.
 * The last message is always in it, and it begins with a question.
 */
export function windowStart(messages, { from, fixed, room: total, scale = 1 }) {
  const costs = messages.map((m) => cost(m) * scale);
  const sum = (start) => fixed + costs.slice(start).reduce((a, b) => a + b, 0);
  if (sum(from) <= total) return from;
  const question = (i) => messages[i].role === 'user';
  const last = messages.findLastIndex((m) => m.role === 'user');
  let start = from;
  while (start < last && (sum(start) > Math.max(fixed, total * LOW) || !question(start))) start++;
  return Math.max(start, 0);
}

/** The instructions as the model gets them: the user's, and what became of older messages. */
export function instructions(system, summary) {
  const parts = [system.trim()];
  if (summary) parts.push(`Summary of the conversation so far:\n${summary}`);
  return parts.filter(Boolean).join('\n\n');
}

/** Messages as the engine takes them; an answer that failed before a word is left out. */
export function toModel(messages, system, summary) {
  const head = instructions(system, summary);
  const list = messages.filter((m) => m.role === 'user' || m.text).map((m) => ({
    role: m.role,
    // What was said is in the answer to it.
    content: m.heard ? m.text || 'Write down what I say.' : m.images?.length || m.audio
      ? [...(m.images ?? []).map(() => ({ type: 'image' })), ...(m.audio ? [{ type: 'audio' }] : []), { type: 'text', text: m.text }]
      : m.text,
  }));
  return head ? [{ role: 'system', content: head }, ...list] : list;
}

/** The request for a summary of what falls out. */
export function summaryRequest(dropped, before, budget) {
  const limit = Math.max(400, Math.floor(budget * 3));
  let text = dropped.filter((m) => m.text).map((m) => `${m.role === 'user' ? 'User' : 'Assistant'}: ${m.text}`).join('\n\n');
  if (text.length > limit) text = `${text.slice(0, limit / 2)}\n[…]\n${text.slice(-limit / 2)}`;
  const known = before ? `Summary of what came before:\n${before}\n\n` : '';
  return [{
    role: 'user',
    content: `${known}Conversation:\n${text}\n\nSummarise the conversation above in at most five short sentences. Keep names, numbers and what was decided. Write only the summary.`,
  }];
}
