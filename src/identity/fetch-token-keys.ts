import type { JSONWebKeySet, JWK } from 'jose'
import { isObject } from '../is-object.ts'

export interface TokenKeySource {
  /** As the "iss" of its tokens. */
  readonly issuer: string
  /** Where its keys are; undefined: where its discovery document says. */
  readonly keysUrl: string | undefined
  /** Whether keys may be fetched in clear from other machines. */
  readonly allowHttp: boolean
  /** Longest time of one fetch, discovery included. Default 5,000. */
  readonly timeoutMs?: number
}

/**
 * Reads the public keys of an issuer, and its discovery document (OpenID Connect Discovery 1.0, section 4) first when no
 * address of the keys is given. Follows no redirect, reads at most 1 MiB, and takes neither shared secrets nor keys for
 * encryption. Rejects with what is wrong, in words for the log and the health page.
 */
export async function fetchTokenKeys(source: TokenKeySource): Promise<JSONWebKeySet> {
  const signal = AbortSignal.timeout(source.timeoutMs ?? 5_000)
  const url = source.keysUrl ?? (await discover(source, signal))
  if (!isSafeUrl(url, source.allowHttp)) throw new Error(`${url} is in clear, and JWT_ALLOW_HTTP is not set`)
  const document = await readJson(url, signal)
  if (!Array.isArray(document.keys)) throw new Error(`${url} has no list of keys`)
  if (document.keys.length > maxKeys) throw new Error(`${url} has more than ${maxKeys} keys`)
  return { keys: document.keys.filter(isPublicKey) }
}

/** Whether nobody on the way can put keys of their own in place of the issuer's. */
export function isSafeUrl(text: string, allowHttp: boolean): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname } = new URL(text)
  if (protocol === 'https:') return true
  return protocol === 'http:' && (allowHttp || loopbackHosts.test(hostname))
}

const loopbackHosts = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/

/** Some issuers keep a key for each of their tenants; more than this is a mistake. */
const maxKeys = 200

const maxBytes = 1024 * 1024

async function discover({ issuer, allowHttp }: TokenKeySource, signal: AbortSignal): Promise<string> {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`
  if (!isSafeUrl(url, allowHttp)) throw new Error(`${url} is in clear, and JWT_ALLOW_HTTP is not set`)
  const document = await readJson(url, signal)
  // Else whoever answers there could vouch for the tokens of another issuer.
  if (document.issuer !== issuer) throw new Error(`${url} is the document of another issuer`)
  if (typeof document.jwks_uri !== 'string') throw new Error(`${url} names no jwks_uri`)
  return document.jwks_uri
}

async function readJson(url: string, signal: AbortSignal): Promise<Record<string, unknown>> {
  const text = await readText(url, signal).catch((cause: unknown) => {
    throw new Error(`${url} cannot be read: ${whyOf(cause)}`, { cause })
  })
  const value = parse(text)
  if (!isObject(value)) throw new Error(`${url} did not answer with a JSON object`)
  return value
}

async function readText(url: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, { signal, redirect: 'manual', headers: { accept: 'application/json' } })
  if (response.status !== 200) {
    await response.body?.cancel()
    throw new Error(`the answer has status ${response.status}`)
  }
  const chunks: Uint8Array[] = []
  let length = 0
  // Leaving the loop gives the connection up.
  for await (const chunk of response.body ?? []) {
    length += chunk.length
    if (length > maxBytes) throw new Error(`the answer has more than ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What fetch says is "fetch failed"; why is in the cause. */
function whyOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? error.cause.message || error.cause.name : error.message
}

/** A shared secret in the set ("oct") could only be a trap: everybody who reads the set could sign with it. */
function isPublicKey(key: unknown): key is JWK {
  return isObject(key) && (key.kty === 'RSA' || key.kty === 'EC' || key.kty === 'OKP') && key.use !== 'enc'
}
