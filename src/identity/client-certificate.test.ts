import { X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createTestCa } from '../../test/support/test-ca.ts'
import { type ClientCertificate, distinguishedName, identityOfCertificate, uriNames } from './client-certificate.ts'

const nowMs = 1_900_000_000_000
const plain: ClientCertificate = { uris: [], subject: 'CN=gate,O=Example', expiresAtMs: nowMs + 1 }
const id = 'spiffe://prod.example/ns/payments/sa/gate'

function identify(changes: Partial<ClientCertificate>) {
  return identityOfCertificate({ ...plain, ...changes }, ['prod.example', 'other.example'], nowMs)
}

describe('a certificate names', () => {
  it.each([
    ['its SPIFFE id, whatever its subject', { uris: [id] }, 'spiffe', id],
    ['its subject when it has no SPIFFE id', {}, 'x509', 'CN=gate,O=Example'],
    ['its subject beside URIs of other schemes', { uris: ['https://a', 'urn:b'] }, 'x509', 'CN=gate,O=Example'],
  ])('%s', (_, changes, issuer, subject) => {
    expect(identify(changes)).toEqual({ issuer, subject, claims: undefined })
  })
})

describe('a certificate is refused', () => {
  const cases: [string, string, Partial<ClientCertificate>, RegExp][] = [
    ['CERTIFICATE_EXPIRED', 'that expired on its connection', { expiresAtMs: nowMs }, /expired at 2030-03-17T17:46:40/],
    ['CERTIFICATE_IDENTITY', 'with two SPIFFE ids', { uris: [id, `${id}-2`] }, /has 2 URIs/],
    ['CERTIFICATE_IDENTITY', 'with a URI beside its SPIFFE id', { uris: ['https://a', id] }, /has 2 URIs/],
    [
      'CERTIFICATE_IDENTITY',
      'of another trust domain',
      { uris: ['spiffe://prod.example.evil/a'] },
      /prod.example.evil/,
    ],
    ['CERTIFICATE_IDENTITY', 'of nobody', { subject: '' }, /names nobody/],
  ]
  it.each(cases)('with %s: one %s', (reason, _, changes, text) => {
    expect(() => identify(changes)).toThrow(expect.objectContaining({ reason, message: expect.stringMatching(text) }))
  })

  it.each([
    'spiffe://prod.example',
    'spiffe://prod.example/',
    'spiffe://prod.example//a',
    'spiffe://prod.example/a/',
    'spiffe://prod.example/a/../b',
    'spiffe://prod.example/.',
    'spiffe://prod.example/a?b',
    'spiffe://prod.example/a#b',
    'spiffe://prod.example/%61',
    'spiffe://prod.example:443/a',
    'spiffe://user@prod.example/a',
    'spiffe://PROD.example/a',
    'SPIFFE://prod.example/a',
    'spiffe:///a',
    'spiffe:prod.example/a',
    `spiffe://prod.example/${'a'.repeat(500)}`,
  ])('with CERTIFICATE_IDENTITY: %s', (uri) => {
    expect(() => identify({ uris: [uri] })).toThrow(expect.objectContaining({ reason: 'CERTIFICATE_IDENTITY' }))
  })
})

describe('names are read as they are written in the certificate', () => {
  const ca = createTestCa()

  it('the subject from its last part to its first, as RFC 4514 has it', () => {
    const { cert } = ca.issue({ organization: 'Acme, Inc', commonName: 'gate' })
    expect(distinguishedName(new X509Certificate(cert).subject)).toBe('CN=gate,O=Acme\\, Inc')
    expect(distinguishedName(new X509Certificate(ca.issue({ commonName: '' }).cert).subject)).toBe('')
  })

  it('URIs, whatever stands in them: none can pretend to be another', () => {
    const nasty = ['a, URI:spiffe://evil/x', 'b", URI:c', 'd\\', 'e\\", f', 'DNS:g', '\u0000h', ',', '']
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constantFrom(...nasty), fc.string({ maxLength: 20 })), { maxLength: 5 }),
        (parts) => {
          // URIs are ASCII (IA5String).
          const uris = parts.map((part) => `x:${part}`.replace(/[^\0-\x7f]/g, ''))
          const { subjectAltName } = new X509Certificate(ca.issue({ uris }).cert)
          expect(uriNames(subjectAltName)).toEqual(uris)
        },
      ),
      { numRuns: 100 },
    )
  })
})
