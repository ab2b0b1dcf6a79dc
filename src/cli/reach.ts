import { connect } from 'node:net'

/** Resolves when something listens at "host:port". */
export function reach(address: string): Promise<void> {
  const { hostname, port } = new URL(`tcp://${address}`)
  return new Promise((done, failure) => {
    // A URL has IPv6 addresses in brackets, a socket without.
    const socket = connect({ host: hostname.replace(/^\[(.*)\]$/, '$1'), port: Number(port), timeout: 5_000 })
    socket.once('connect', () => {
      socket.destroy()
      done()
    })
    socket.once('timeout', () => socket.destroy(new Error(`${address} does not answer`)))
    socket.once('error', failure)
  })
}

/** As {@link reach}, of the host of an http or https URL; nothing is sent to it. */
export function reachUrl(url: string): Promise<void> {
  const { hostname, port, protocol } = new URL(url)
  return reach(`${hostname}:${port === '' ? (protocol === 'https:' ? 443 : 80) : port}`)
}
