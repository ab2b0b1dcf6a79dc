import { BlockList, isIP } from 'node:net'

/** Whether an address lies in a network. */
export type Network = (address: string) => boolean

/** A network in CIDR notation, IPv4 or IPv6, such as "10.0.0.0/8"; undefined when the text is none. */
export function parseNetwork(cidr: string): Network | undefined {
  const [base = '', bits = '', ...more] = cidr.split('/')
  const family = isIP(base)
  if (more.length > 0 || family === 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > (family === 4 ? 32 : 128)) {
    return undefined
  }
  const list = new BlockList()
  list.addSubnet(base, Number(bits), family === 4 ? 'ipv4' : 'ipv6')
  // An IPv4 address that came in over an IPv6 socket is that IPv4 address.
  return (address) => {
    const plain = address.startsWith('::ffff:') && isIP(address.slice(7)) === 4 ? address.slice(7) : address
    const version = isIP(plain)
    return version !== 0 && list.check(plain, version === 4 ? 'ipv4' : 'ipv6')
  }
}

const kept = new Map<string, Network | undefined>()
const keptMax = 1_000

/** As {@link parseNetwork}, and keeps the last ones. */
export function keptNetwork(cidr: string): Network | undefined {
  if (kept.has(cidr)) return kept.get(cidr)
  const network = parseNetwork(cidr)
  if (kept.size >= keptMax) kept.delete(kept.keys().next().value ?? '')
  kept.set(cidr, network)
  return network
}
