/** What a page of an origin gets from `fetch`; rejects with a TypeError where a browser would. */
export type Fetch = typeof globalThis.fetch

/**
 * The `fetch` of a page at `origin`, for clients made for browsers: sends the Origin, asks first where the Fetch standard
 * wants a preflight, lets nothing through that the answer does not allow, and shows of an answer what it exposes.
 * https://fetch.spec.whatwg.org/#http-cors-protocol
 */
export function browserFetch(origin: string): Fetch {
  return async (input, init) => {
    const request = new Request(input, init)
    const unsafe = [...request.headers.keys()].filter((name) => !isSafelisted(name, request.headers)).sort()
    if (unsafe.length > 0 || !simpleMethods.has(request.method)) await preflight(origin, request, unsafe)
    // Node lets the header through that a browser sets by itself.
    request.headers.set('origin', origin)
    const response = await fetch(request)
    allow(origin, response)
    return onlyExposed(response)
  }
}

const simpleMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST'])
const simpleTypes: ReadonlySet<string> = new Set([
  'application/x-www-form-urlencoded',
  'multipart/form-data',
  'text/plain',
])
const simpleHeaders: ReadonlySet<string> = new Set(['accept', 'accept-language', 'content-language'])
const alwaysExposed = [
  'cache-control',
  'content-language',
  'content-length',
  'content-type',
  'expires',
  'last-modified',
]

function isSafelisted(name: string, headers: Headers): boolean {
  if (name === 'content-type') return simpleTypes.has(headers.get(name)?.split(';')[0]?.trim().toLowerCase() ?? '')
  return simpleHeaders.has(name)
}

async function preflight(origin: string, request: Request, unsafe: readonly string[]): Promise<void> {
  const response = await fetch(request.url, {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': request.method,
      ...(unsafe.length > 0 && { 'access-control-request-headers': unsafe.join(',') }),
    },
  })
  await response.arrayBuffer()
  if (!response.ok) throw new TypeError(`Failed to fetch: the preflight was answered with ${response.status}`)
  allow(origin, response)
  const methods = names(response, 'access-control-allow-methods')
  if (!simpleMethods.has(request.method) && !methods.includes(request.method.toLowerCase()) && !methods.includes('*')) {
    throw new TypeError(`Failed to fetch: the method ${request.method} is not allowed`)
  }
  const headers = names(response, 'access-control-allow-headers')
  const refused = unsafe.filter(
    (name) => !headers.includes(name) && (name === 'authorization' || !headers.includes('*')),
  )
  if (refused.length > 0) throw new TypeError(`Failed to fetch: ${refused.join(', ')} not allowed`)
}

function allow(origin: string, response: Response): void {
  const allowed = response.headers.get('access-control-allow-origin')
  if (allowed !== origin && allowed !== '*') throw new TypeError(`Failed to fetch: ${origin} is not allowed`)
}

function onlyExposed(response: Response): Response {
  const exposed = names(response, 'access-control-expose-headers')
  const shown = [...response.headers].filter(([name]) => alwaysExposed.includes(name) || exposed.includes(name))
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers: shown })
}

function names(response: Response, header: string): string[] {
  const value = response.headers.get(header) ?? ''
  return value.split(',').map((name) => name.trim().toLowerCase())
}
