import { Code, ConnectError } from '@connectrpc/connect'
import { type FieldViolation, TollgateError } from '../errors.ts'
import { messageTooLarge, toTollgateError } from './connect-error.ts'
import type { ServerCall } from './server-call.ts'

/**
 * Why the router refused a call before any code of ours saw its message, in the one vocabulary: it could not be decoded,
 * or is too large once decompressed. Undefined for calls that it did not refuse, and for those of an RPC, a compression
 * or a protocol that it does not have, which no detail would help.
 */
export function decoderError({ error, routerSignal }: ServerCall, maxMessageBytes: number): TollgateError | undefined {
  const thrown: unknown = routerSignal?.aborted === true ? routerSignal.reason : undefined
  if (error !== undefined || !(thrown instanceof ConnectError) || thrown.code === Code.Unimplemented) return undefined
  if (thrown.code === Code.ResourceExhausted) return messageTooLarge(maxMessageBytes)
  if (thrown.code !== Code.InvalidArgument) return toTollgateError(thrown)
  const { field, description } = plainReason(thrown.rawMessage)
  if (field === '') return new TollgateError('INVALID_ARGUMENT', description)
  return new TollgateError('INVALID_ARGUMENT', `${field}: ${description}`, { fields: [{ field, description }] })
}

/** What is wrong, without the names that only the decoder knows; the field is empty where it does not name one. */
export function plainReason(text: string): FieldViolation {
  const [, type = '', key] =
    /^cannot decode message (?:\S+\.)?(\w+) from JSON: key "(.*)" is unknown$/s.exec(text) ?? []
  if (key !== undefined) return { field: key, description: `is no field of ${type}` }
  const [, twice] = /^cannot decode message \S+ from JSON: duplicate object key "(.*)"$/s.exec(text) ?? []
  if (twice !== undefined) return { field: twice, description: 'is given more than once' }
  const [, field, wrong] = /^cannot decode (?:field|oneof) \S+\.(\w+) from JSON: (.*)$/s.exec(text) ?? []
  if (field !== undefined && wrong !== undefined) return { field, description: wrong }
  const [, values, value] = /^cannot decode enum (?:\S+\.)?(\w+) from JSON: (.*)$/s.exec(text) ?? []
  if (values !== undefined) return { field: '', description: `${value} is no ${values}` }
  // What follows is the value, which may be a prompt.
  const [, whole] = /^cannot decode message (?:\S+\.)?(\w+) from JSON [^:]/s.exec(text) ?? []
  if (whole !== undefined) return { field: '', description: `the JSON is no ${whole}` }
  const [, json] = /^cannot decode message \S+ from JSON: (.*)$/s.exec(text) ?? []
  // The parser quotes the JSON itself, which may hold a prompt.
  const said = json?.replace(/, (?:\.\.\.)?".*is not valid JSON$/s, '')
  return { field: '', description: said === undefined ? text : `the JSON cannot be read: ${said}` }
}
