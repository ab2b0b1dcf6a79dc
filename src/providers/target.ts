/** Where a request is sent, for which model, and how the credential is shown. */
import { setKnownMember, setMember } from './json-edit.ts'
import type { BackendTarget, ReadRequest } from './provider.ts'

/**
 * How a credential is shown: `authorization: Bearer` (OpenAI, vLLM, Vertex AI, Entra ID), `x-api-key` (Anthropic),
 * `x-goog-api-key` (Gemini API), `api-key` (Azure OpenAI).
 */
export type AuthForm = 'bearer' | 'x-api-key' | 'x-goog-api-key' | 'api-key'

/** Headers of a JSON request with its credential, shown as the target wants it; all names in lower case. */
export function requestHeaders(ownAuth: AuthForm, target: BackendTarget, accept: string): Record<string, string> {
  const headers: Record<string, string> = { 'content-type': 'application/json', accept }
  const { credential, auth = ownAuth } = target
  if (credential === undefined) return headers
  if (auth === 'bearer') headers.authorization = `Bearer ${credential}`
  else headers[auth] = credential
  return headers
}

/** The body, which is a JSON object, with the target's model: the same bytes object when it asks for that already. */
export function bodyFor({ body, model }: ReadRequest, target: BackendTarget): Uint8Array {
  if (target.model === '' || target.model === model) return body
  const json = JSON.stringify(target.model)
  // A model that was read is there; one that was not may be there as something else.
  return model === '' ? setMember(body, ['model'], json) : setKnownMember(body, 'model', json, true)
}

/** What the answer may be. */
export const acceptJson = 'application/json'
export const acceptEvents = 'text/event-stream'
export const acceptLines = 'application/x-ndjson'

/**
 * The address of one operation of an API whose operations have fixed paths.
 *
 * | registered URL | address |
 * |---|---|
 * | a base: its path ends in `/`, in a version (`/v1`, `/v1beta`), in `root`, or in Azure's `/deployments/NAME` | the operation's path is added |
 * | no path | `root` and the operation's path are added |
 * | ends in one of `operations` | that is replaced by the operation that is called |
 * | anything else | as it stands |
 *
 * A query stays (Azure's `api-version`). `operation` undefined, for a call that is none of them, leaves the URL alone.
 */
export function operationUrl(
  url: string,
  operation: string | undefined,
  operations: readonly string[],
  root: string,
): string {
  if (operation === undefined) return url
  const { path, query } = splitUrl(url)
  const known = operations.find((other) => path.endsWith(other))
  if (known !== undefined) return path.slice(0, -known.length) + operation + query
  if (isHost(path)) return path.replace(/\/?$/, root) + operation + query
  return isBase.test(path) || path.endsWith(root) ? path.replace(/\/$/, '') + operation + query : url
}

const isBase = /\/$|\/v\d+[a-z0-9]*$|\/deployments\/[^/]+$/

/** The part of a URL before its query, and the query with its question mark. */
export function splitUrl(url: string): { readonly path: string; readonly query: string } {
  const at = url.search(/[?#]/)
  return at < 0 ? { path: url, query: '' } : { path: url.slice(0, at), query: url.slice(at).replace(/#.*/, '') }
}

/** True for a URL without a path. */
export function isHost(path: string): boolean {
  return /^https?:\/\/[^/]+\/?$/.test(path)
}
