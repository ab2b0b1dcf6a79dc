import type { TollgateError } from '../errors.ts'
import type { FallbackCondition } from '../registry/records.ts'
import { type Failure, failureOf } from './retry-table.ts'

/**
 * Which failures of a service another one may take over; those that are not here end the call. The table is printed in
 * docs/routing.md; a test walks it.
 */
export const fallbackTable: Readonly<Partial<Record<Failure, FallbackCondition>>> = {
  no_connection: 'error',
  connect_timeout: 'timeout',
  no_free_connection: 'error',
  credential_missing: 'error',
  breaker_open: 'error',
  reset: 'error',
  cut: 'error',
  headers_timeout: 'timeout',
  first_token_timeout: 'timeout',
  idle_timeout: 'timeout',
  total_timeout: 'timeout',
  busy: 'busy',
  unavailable: 'error',
  server_error: 'error',
  gateway_timeout: 'timeout',
  unusable_status: 'error',
  credential_refused: 'error',
  invalid_answer: 'error',
  answer_too_large: 'error',
}

/** What a rejection is about, by `backendError` in the error's metadata. */
const rejections: ReadonlyMap<string, FallbackCondition> = new Map([
  ['content_filter', 'content_filter'],
  ['context_length', 'context_length'],
])

/** The condition that an error of a call fulfils; undefined when no service may take over. */
export function conditionOf(error: TollgateError): FallbackCondition | undefined {
  const failure = failureOf(error)
  return failure === 'rejected' ? rejections.get(error.metadata.backendError ?? '') : fallbackTable[failure]
}
