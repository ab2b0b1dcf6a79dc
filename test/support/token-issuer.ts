import { createHmac, createPublicKey } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose'

/** An identity provider with discovery, keys that rotate, and outages; a real HTTP server. */
export interface TokenIssuer {
  readonly issuer: string
  readonly keysUrl: string
  /** How often its discovery document was asked for. */
  asked(): number
  /** A key of its own, in use from now on; the ones before stay in the set. */
  rotate(alg?: string): Promise<void>
  /** Takes every key but the newest out of the set. */
  withdrawOld(): void
  /** What it answers instead of its documents; undefined: all is well. */
  answerWith(fault: IssuerFault | undefined): void
  /** A token for "gate", subject "alice", five minutes from now, with these changes; signed with the newest key. */
  sign(changes?: Record<string, unknown>, header?: { alg?: string; kid?: string }): Promise<string>
  /** The same without a signature ("alg": "none"). */
  unsigned(): string
  /** The same, signed with HS256 and the newest public key as the secret, as who knows that key could. */
  confused(): string
  /** The newest key, as the set shows it. */
  publicJwk(): Record<string, unknown>
  close(): Promise<void>
}

export interface IssuerFault {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly body?: string
  /** Begins the answer and never ends it. */
  readonly stalls?: boolean
}

export async function startTokenIssuer(now: () => number = Date.now): Promise<TokenIssuer> {
  const signers: { kid: string; alg: string; privateKey: CryptoKey; jwk: Record<string, unknown> }[] = []
  let fault: IssuerFault | undefined
  let asked = 0
  let published = 0

  const server = createServer((request, response) => {
    const isKeys = request.url === '/realm/keys'
    if (!isKeys) asked++
    if (fault?.stalls) return response.write('{')
    if (fault !== undefined) return response.writeHead(fault.status ?? 200, fault.headers).end(fault.body)
    response.setHeader('content-type', 'application/json')
    if (isKeys) return response.end(JSON.stringify({ keys: signers.slice(published).map(({ jwk }) => jwk) }))
    if (request.url !== '/realm/.well-known/openid-configuration') return response.writeHead(404).end()
    response.end(JSON.stringify({ issuer, jwks_uri: keysUrl }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const issuer = `http://127.0.0.1:${port}/realm`
  const keysUrl = `${issuer}/keys`

  async function rotate(alg = 'RS256'): Promise<void> {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
    const kid = `key-${signers.length + 1}`
    signers.push({ kid, alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } })
  }
  function newest() {
    const signer = signers.at(-1)
    if (signer === undefined) throw new Error('the issuer has no key')
    return signer
  }
  function claimsWith(changes: Record<string, unknown>): Record<string, unknown> {
    const nowSeconds = Math.floor(now() / 1000)
    return { iss: issuer, sub: 'alice', aud: 'gate', iat: nowSeconds, exp: nowSeconds + 300, ...changes }
  }
  await rotate()

  return {
    issuer,
    keysUrl,
    asked: () => asked,
    rotate,
    withdrawOld() {
      published = signers.length - 1
    },
    answerWith(next) {
      fault = next
    },
    sign(changes = {}, header = {}) {
      const { kid, alg, privateKey } = newest()
      return new SignJWT(claimsWith(changes)).setProtectedHeader({ alg, kid, typ: 'JWT', ...header }).sign(privateKey)
    },
    unsigned: () => new UnsecuredJWT(claimsWith({})).encode(),
    confused() {
      const { kid, jwk } = newest()
      const secret = createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' })
      const body = `${base64url({ alg: 'HS256', kid })}.${base64url(claimsWith({}))}`
      return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`
    },
    publicJwk: () => newest().jwk,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** A part of a token. */
export function base64url(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
