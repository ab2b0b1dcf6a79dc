import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'

/**
 * The text form of an API key:
 *
 *     tg_live_<key id>_<secret><checksum>
 *
 * - **key id**: 64 random bits, 11 characters of base 62. Public: it may be logged and shown.
 * - **secret**: 256 random bits, 43 characters of base 62.
 * - **checksum**: CRC-32 of everything before it, 6 characters of base 62. It finds every changed character (a CRC-32
 *   detects any error burst of up to 32 bits), so that a typo costs no look-up. It protects against accidents only.
 *
 * All parts have one length, so that a key is 69 characters and is told from other text, by secret scanners too, with
 * `tg_(live|test)_[0-9A-Za-z]{11}_[0-9A-Za-z]{49}`.
 */
export interface ParsedKey {
  readonly environment: KeyEnvironment
  readonly keyId: string
}

/** What the prefix says a key is for; both are verified alike. */
export type KeyEnvironment = 'live' | 'test'

/** Reads a key without any I/O; undefined when it is not one, or its checksum is wrong. */
export function parseKey(text: string): ParsedKey | undefined {
  if (text.length !== keyLength) return undefined
  const environment = text.startsWith('tg_live_') ? 'live' : text.startsWith('tg_test_') ? 'test' : undefined
  if (environment === undefined || !keyPattern.test(text)) return undefined
  if (text.slice(-checksumLength) !== checksum(text.slice(0, -checksumLength))) return undefined
  return { environment, keyId: keyIdIn(text) }
}

/** Where the id of a key is; anything, of a text that is none. */
export function keyIdIn(text: string): string {
  return text.slice(prefixLength, prefixLength + keyIdLength)
}

/** Whether text claims to be an API key, well-formed or not. */
export function looksLikeKey(text: string): boolean {
  return text.startsWith('tg_live_') || text.startsWith('tg_test_')
}

export interface GeneratedKey {
  readonly keyId: string
  /** The whole key: to be shown once, and never stored or logged. */
  readonly key: string
}

/**
 * Makes a key from 40 bytes of `random`, which must be a cryptographic source of that many bytes. `idBytes`, 8 of them, make
 * its id instead where the id must follow from something.
 */
export function generateKey(
  random: (bytes: number) => Uint8Array = randomBytes,
  environment: KeyEnvironment = 'live',
  idBytes: Uint8Array = random(8),
): GeneratedKey {
  const keyId = base62(idBytes, keyIdLength)
  const body = `tg_${environment}_${keyId}_${base62(random(32), secretLength)}`
  return { keyId, key: body + checksum(body) }
}

/**
 * 16 bits of the key's SHA-256, stored in clear: all but one in 65,536 wrong secrets are refused by it before the
 * expensive check, so that nobody can occupy that check with guesses. It says nothing of the secret's other 240 bits.
 */
export function secretTag(key: string): number {
  return hash('sha256', key, 'buffer').readUInt16BE(0)
}

const prefixLength = 'tg_live_'.length
const keyIdLength = 11
const secretLength = 43
const checksumLength = 6
const keyLength = prefixLength + keyIdLength + 1 + secretLength + checksumLength
const keyPattern = new RegExp(
  `^tg_(?:live|test)_[0-9A-Za-z]{${keyIdLength}}_[0-9A-Za-z]{${secretLength + checksumLength}}$`,
)
const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** CRC-32 in base 62. Plain number arithmetic: it runs on every call. */
function checksum(text: string): string {
  let rest = crc32(text)
  let out = ''
  for (let i = 0; i < checksumLength; i++) {
    out = alphabet.charAt(rest % 62) + out
    rest = Math.floor(rest / 62)
  }
  return out
}

function base62(bytes: Uint8Array, length: number): string {
  let rest = 0n
  for (const byte of bytes) rest = (rest << 8n) | BigInt(byte)
  let out = ''
  for (let i = 0; i < length; i++) {
    out = alphabet.charAt(Number(rest % 62n)) + out
    rest /= 62n
  }
  return out
}
