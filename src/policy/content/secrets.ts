import type { Span } from './personal.ts'

/**
 * Forms of keys that are known by their beginning. None can begin within a word, so that a long word is gone through once
 * and not from each of its letters.
 */
const forms = [
  // Keys of this gate.
  'tg_(?:live|test)_[A-Za-z0-9_]{20,200}',
  // AWS access key ids.
  '(?:AKIA|ASIA)[A-Z0-9]{16}',
  'gh[pousr]_[A-Za-z0-9]{36,255}',
  'github_pat_[A-Za-z0-9_]{22,255}',
  'glpat-[A-Za-z0-9_-]{20,200}',
  // OpenAI, Anthropic and others.
  'sk-[A-Za-z0-9_-]{20,250}',
  // Stripe.
  '(?:sk|rk)_live_[A-Za-z0-9]{16,200}',
  'xox[abeoprs]-[A-Za-z0-9-]{10,250}',
  // Google.
  'AIza[A-Za-z0-9_-]{35}',
  // JSON Web Tokens.
  'eyJ[A-Za-z0-9_-]{8,4000}\\.eyJ[A-Za-z0-9_-]{8,8000}\\.[A-Za-z0-9_-]{8,2000}',
]
const keyForms = new RegExp(`(?<![A-Za-z0-9_.-])(?:${forms.join('|')})`, 'g')

const privateKeyBegins = /-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY-----/g
const privateKeyEnds = ' PRIVATE KEY-----'

/** API keys of well-known forms, private keys in PEM, JSON Web Tokens. Takes time in proportion to the text. */
export function findSecrets(text: string): Span[] {
  const found: Span[] = []
  for (const { index, 0: key } of text.matchAll(keyForms)) found.push({ start: index, end: index + key.length })
  let done = 0
  for (const { index: start, 0: head } of text.matchAll(privateKeyBegins)) {
    if (start < done) continue
    const footer = text.indexOf('-----END ', start + head.length)
    const close = footer < 0 ? -1 : text.indexOf(privateKeyEnds.trimStart(), footer)
    // A key that is cut off is a key all the same.
    done = close < 0 ? text.length : close + privateKeyEnds.length - 1
    found.push({ start, end: done })
  }
  return found
}
