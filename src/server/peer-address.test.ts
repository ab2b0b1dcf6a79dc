import { expect, test } from 'vitest'
import { createPeerAddress } from './peer-address.ts'

function addressOf(proxies: readonly string[], remoteAddress: string, forwarded?: string): string {
  const headers = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded }
  return createPeerAddress(proxies)({ headers, socket: { remoteAddress } })
}

test('nobody is believed by default', () => {
  expect(addressOf([], '10.0.0.1', '1.2.3.4')).toBe('10.0.0.1')
})

test.each([
  ['a proxy that is trusted tells who calls', '10.1.2.3', '1.2.3.4', '1.2.3.4'],
  ['what the caller wrote himself is passed over', '10.1.2.3', '6.6.6.6, 1.2.3.4', '1.2.3.4'],
  ['of several proxies each is passed over', '10.1.2.3', '1.2.3.4, 10.9.9.9', '1.2.3.4'],
  ['a trusted caller is itself', '10.1.2.3', '10.9.9.9', '10.9.9.9'],
  ['nonsense ends it', '10.1.2.3', '1.2.3.4, nonsense, 10.9.9.9', '10.9.9.9'],
  ['without the header it is the proxy', '10.1.2.3', undefined, '10.1.2.3'],
  ['somebody else is not believed', '11.1.2.3', '1.2.3.4', '11.1.2.3'],
  ['also where IPv6 carries IPv4', '::ffff:10.1.2.3', '::ffff:1.2.3.4', '1.2.3.4'],
  ['also over IPv6', '2001:db8::1', '2001:db9::1', '2001:db9::1'],
])('%s', (_, remote, forwarded, address) => {
  expect(addressOf(['10.0.0.0/8', '2001:db8::/32', '::1'], remote, forwarded)).toBe(address)
})
