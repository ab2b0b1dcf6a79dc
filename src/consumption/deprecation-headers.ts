import type { Deprecation } from '../registry/lifecycle.ts'

/**
 * How the answers of a deprecated service warn: `deprecation` since when (RFC 9745, a Date of RFC 9651), `sunset` till when
 * (RFC 8594, an HTTP date), and what to call instead. The same names and values on every wire.
 */
export function deprecationHeaders({ atMs, sunsetAtMs, successor }: Deprecation): [name: string, value: string][] {
  const headers: [string, string][] = [['deprecation', `@${Math.floor(atMs / 1000)}`]]
  if (sunsetAtMs !== undefined) headers.push(['sunset', new Date(sunsetAtMs).toUTCString()])
  if (successor !== '') headers.push(['x-tollgate-successor', successor])
  return headers
}
