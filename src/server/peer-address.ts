import { BlockList, isIP } from 'node:net'
import type { IncomingHeaders } from './server-call.ts'

/** What a request tells of where it comes from. */
export interface Incoming {
  readonly headers: IncomingHeaders
  readonly socket: { readonly remoteAddress?: string | undefined }
}

/** Networks of proxies that are believed, "10.0.0.0/8" or a single address each. */
export type TrustedProxies = readonly string[]

/**
 * Finds out whence a request comes: from the other end of its connection; or, when that is a trusted proxy, from the last
 * address of X-Forwarded-For that is none. What stands before that one anybody can have written.
 */
export function createPeerAddress(proxies: TrustedProxies): (request: Incoming) => string {
  if (proxies.length === 0) return socketAddress
  const trusted = new BlockList()
  for (const proxy of proxies) {
    const [address = '', bits] = proxy.split('/')
    const family = familyOf(address)
    trusted.addSubnet(address, Number(bits ?? (family === 'ipv4' ? 32 : 128)), family)
  }
  const isTrusted = (address: string): boolean => trusted.check(address, familyOf(address))
  return (request) => {
    const address = socketAddress(request)
    const header = request.headers['x-forwarded-for']
    if (header === undefined || isIP(address) === 0 || !isTrusted(address)) return address
    const named = (typeof header === 'string' ? header : header.join(',')).split(',').map((part) => plain(part.trim()))
    let nearest = address
    for (const hop of named.reverse()) {
      // Behind what is no address nobody is known.
      if (isIP(hop) === 0) return nearest
      nearest = hop
      if (!isTrusted(hop)) return hop
    }
    return nearest
  }
}

function socketAddress(request: Incoming): string {
  return plain(request.socket.remoteAddress ?? '')
}

/** IPv4 as it is written, also where a socket of IPv6 carries it. */
function plain(address: string): string {
  return address.startsWith('::ffff:') ? address.slice(7) : address
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 4 ? 'ipv4' : 'ipv6'
}
