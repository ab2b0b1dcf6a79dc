/**
 * What stands in for src/server/connect-error.ts in the server of the conformance tests. The gate tells callers nothing but
 * what a reason of src/errors.ts says, with google.rpc.ErrorInfo in each error; the suites want any code, text and details,
 * and count the details. So an error that has one of Connect as its cause goes out as that, and the others without details.
 * What the wire makes of them is the wire's own.
 */
import { ConnectError } from '@connectrpc/connect'
import type { TollgateError } from '../../src/errors.ts'
import * as real from '../../src/server/connect-error.ts'
import type { ServerCall } from '../../src/server/server-call.ts'

export * from '../../src/server/connect-error.ts'

export function toConnectError(error: TollgateError): ConnectError {
  if (error.cause instanceof ConnectError) return error.cause
  const { rawMessage, code } = real.toConnectError(error)
  return new ConnectError(rawMessage, code)
}

export function failCall(call: ServerCall, thrown: unknown): ConnectError {
  real.failCall(call, thrown)
  return toConnectError(call.error ?? real.toTollgateError(thrown))
}
