/** Certificates made by hand in DER (RFC 5280) for each run of the tests: no key lies in the repository. */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'

/** A certificate and its key, as PEM. */
export interface Pair {
  readonly cert: string
  readonly key: string
}

export interface LeafOptions {
  /** Name of the subject; default "test". Empty for no subject at all. */
  readonly commonName?: string
  /** Stands before the common name. */
  readonly organization?: string
  /** Alternative names that are URIs, such as "spiffe://…". */
  readonly uris?: readonly string[]
  /** Unix milliseconds; default a day ago. */
  readonly notBeforeMs?: number
  /** Unix milliseconds; default in a day. */
  readonly notAfterMs?: number
}

export interface TestCa {
  readonly cert: string
  /** A certificate for 127.0.0.1, good for servers and clients. */
  issue(options?: LeafOptions): Pair
}

/** A certificate authority of its own. */
export function createTestCa(name = 'test CA'): TestCa {
  const subject = nameOf({ commonName: name })
  const { publicKey, privateKey } = newKeys()
  return {
    cert: certificate({ issuer: subject, subject, publicKey, signer: privateKey, extensions: [caConstraints] }),
    issue(options = {}) {
      const leaf = newKeys()
      const extensions = [alternativeNames(options.uris ?? [])]
      const { notBeforeMs, notAfterMs } = options
      const facts = {
        issuer: subject,
        subject: nameOf(options),
        publicKey: leaf.publicKey,
        signer: privateKey,
        extensions,
      }
      return { cert: certificate({ ...facts, notBeforeMs, notAfterMs }), key: pemOf(leaf.privateKey) }
    },
  }
}

/** A certificate for 127.0.0.1 that vouches for itself. */
export function selfSigned(options: LeafOptions = {}): Pair {
  const { publicKey, privateKey } = newKeys()
  const subject = nameOf(options)
  const extensions = [alternativeNames(options.uris ?? [])]
  const { notBeforeMs, notAfterMs } = options
  const facts = { issuer: subject, subject, publicKey, signer: privateKey, extensions, notBeforeMs, notAfterMs }
  return { cert: certificate(facts), key: pemOf(privateKey) }
}

interface Facts {
  readonly issuer: Buffer
  readonly subject: Buffer
  readonly publicKey: KeyObject
  readonly signer: KeyObject
  readonly extensions: readonly Buffer[]
  readonly notBeforeMs?: number | undefined
  readonly notAfterMs?: number | undefined
}

function certificate({ issuer, subject, publicKey, signer, extensions, notBeforeMs, notAfterMs }: Facts): string {
  const ecdsaWithSha256 = sequence(Buffer.from('06082a8648ce3d040302', 'hex'))
  const validity = sequence(utcTime(notBeforeMs ?? Date.now() - day), utcTime(notAfterMs ?? Date.now() + day))
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ecdsaWithSha256,
    issuer,
    validity,
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions)),
  )
  const signature = der(0x03, Buffer.concat([Buffer.from([0]), sign('sha256', body, signer)]))
  const text = sequence(body, ecdsaWithSha256, signature).toString('base64')
  return `-----BEGIN CERTIFICATE-----\n${text.replace(/.{64}(?=.)/g, '$&\n')}\n-----END CERTIFICATE-----\n`
}

const day = 86_400_000

/** Critical: it may vouch for others. */
const caConstraints = sequence(
  Buffer.from('0603551d13', 'hex'),
  Buffer.from('0101ff', 'hex'),
  der(0x04, sequence(Buffer.from('0101ff', 'hex'))),
)

function alternativeNames(uris: readonly string[]): Buffer {
  const address = der(0x87, Buffer.from([127, 0, 0, 1]))
  const names = sequence(address, ...uris.map((uri) => der(0x86, Buffer.from(uri))))
  return sequence(Buffer.from('0603551d11', 'hex'), der(0x04, names))
}

function nameOf({ commonName = 'test', organization }: LeafOptions): Buffer {
  const part = (type: string, text: string): Buffer =>
    der(0x31, sequence(Buffer.from(type, 'hex'), der(0x0c, Buffer.from(text))))
  return sequence(
    ...(organization === undefined ? [] : [part('060355040a', organization)]),
    ...(commonName === '' ? [] : [part('0603550403', commonName)]),
  )
}

function newKeys(): { publicKey: KeyObject; privateKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' })
}

function pemOf(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString()
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts))
}

function der(tag: number, content: Buffer): Buffer {
  const { length } = content
  // The shortest form of a length; Go takes no other.
  const long = length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255]
  const head = [tag, ...(length < 128 ? [length] : long)]
  return Buffer.concat([Buffer.from(head), content])
}

function utcTime(ms: number): Buffer {
  return der(0x17, Buffer.from(`${new Date(ms).toISOString().replace(/[-:T]/g, '').slice(2, 14)}Z`))
}
