import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { isJsonType } from '../../content-type.ts'
import { TollgateError } from '../../errors.ts'
import { messageTooLarge } from '../connect-error.ts'
import type { Exchange } from '../exchange.ts'
import { readUnframed, type WholeLimits } from '../read-whole.ts'
import type { ServerCall } from '../server-call.ts'
import { wrong } from './query.ts'

/**
 * The body of a request, decompressed. Throws CONTENT_TYPE_UNSUPPORTED for a compression other than gzip, INVALID_ARGUMENT
 * for what is none, and MESSAGE_TOO_LARGE for what is too large, before or after.
 */
export async function readPlainBody(exchange: Exchange, call: ServerCall, limits: WholeLimits): Promise<Uint8Array> {
  const encoding = (call.header('content-encoding') ?? 'identity').trim().toLowerCase()
  if (encoding !== 'identity' && encoding !== 'gzip') {
    call.setResponseHeader('accept-encoding', 'gzip')
    throw unsupported('content-encoding', 'must be gzip or absent')
  }
  const bytes = await readUnframed(exchange, call, limits)
  if (encoding === 'identity' || bytes.length === 0) return bytes
  try {
    return await promisify(gunzip)(bytes, { maxOutputLength: limits.maxMessageBytes })
  } catch (error) {
    if (error instanceof RangeError) throw messageTooLarge(limits.maxMessageBytes)
    throw wrong('content-encoding', 'says gzip, and the body is none')
  }
}

/** Throws CONTENT_TYPE_UNSUPPORTED for what is not JSON. */
export function checkJsonType(contentType: string): void {
  if (!isJsonType(contentType)) throw unsupported('content-type', 'must be application/json')
}

function unsupported(header: string, description: string): TollgateError {
  return new TollgateError('CONTENT_TYPE_UNSUPPORTED', `${header} ${description}`, {
    fields: [{ field: header, description }],
    metadata: { header },
  })
}
