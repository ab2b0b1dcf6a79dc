import { create, toBinary } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { describe, expect, it, test } from 'vitest'
import { ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts'
import { StatusSchema } from '../../gen/google/rpc/status_pb.ts'
import { isReason, type Reason, reasons } from '../errors.ts'
import { conditionOf } from './fallback-table.ts'
import { grpcError } from './grpc-status.ts'
import { type Failure, failureOf } from './retry-table.ts'

/** Trailers of a gate, as `src/server/` writes them. */
function trailers(reason: string, metadata: Record<string, string> = {}, retryMs?: number) {
  const details = [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain: 'tollgate', metadata }))]
  if (retryMs !== undefined) {
    const retryDelay = { seconds: BigInt(Math.floor(retryMs / 1000)), nanos: (retryMs % 1000) * 1_000_000 }
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })))
  }
  const code = isReason(reason) ? reasons[reason].grpc : 2
  const status = create(StatusSchema, { code, message: 'the secret of the upstream', details })
  return {
    'grpc-status': String(code),
    'grpc-message': 'the secret of the upstream',
    'grpc-status-details-bin': Buffer.from(toBinary(StatusSchema, status)).toString('base64').replace(/=+$/, ''),
  }
}

function failureIn(told: Parameters<typeof grpcError>[0]): Failure | undefined {
  const error = grpcError(told)
  return error === undefined ? undefined : failureOf(error)
}

describe('trailers of a gate', () => {
  test.each<[Reason, Failure, Reason]>([
    ['RATE_LIMITED', 'busy', 'BACKEND_FAILED'],
    ['QUOTA_EXCEEDED', 'busy', 'BACKEND_FAILED'],
    ['CREDENTIAL_REVOKED', 'credential_refused', 'BACKEND_CREDENTIAL_REFUSED'],
    ['POLICY_DENIED', 'credential_refused', 'BACKEND_CREDENTIAL_REFUSED'],
    ['SERVICE_NOT_FOUND', 'unusable_status', 'BACKEND_FAILED'],
    ['INVALID_ARGUMENT', 'rejected', 'BACKEND_REJECTED'],
    ['BACKEND_REJECTED', 'rejected', 'BACKEND_REJECTED'],
    ['BREAKER_OPEN', 'unavailable', 'BACKEND_FAILED'],
    ['SHUTTING_DOWN', 'unavailable', 'BACKEND_FAILED'],
    ['DEADLINE_EXCEEDED', 'gateway_timeout', 'BACKEND_FAILED'],
    ['BACKEND_TIMEOUT', 'gateway_timeout', 'BACKEND_FAILED'],
    ['BACKEND_ANSWER_INVALID', 'invalid_answer', 'BACKEND_ANSWER_INVALID'],
    ['BACKEND_ANSWER_TOO_LARGE', 'answer_too_large', 'BACKEND_ANSWER_TOO_LARGE'],
    ['BACKEND_CREDENTIAL_REFUSED', 'unusable_status', 'BACKEND_FAILED'],
    ['INTERNAL', 'server_error', 'BACKEND_FAILED'],
  ])('with %s are the failure %s', (told, failure, reason) => {
    const error = grpcError(trailers(told))
    expect(error).toMatchObject({ reason, metadata: { failure, backendReason: told } })
  })

  it('with any reason are an error of the backend, never the caller’s own', () => {
    for (const told of Object.keys(reasons)) {
      const error = grpcError(trailers(told, { failure: 'no_connection' }, 1_500))
      expect(error?.reason, told).toMatch(/^BACKEND_/)
      expect(error?.metadata.backendReason).toBe(told)
      expect(error?.metadata.failure, told).not.toMatch(/no_connection|call_ended|internal/)
      expect(`${error?.message} ${JSON.stringify(error?.metadata)}`).not.toContain('secret')
    }
  })

  it('say when to come again', () => {
    expect(grpcError(trailers('RATE_LIMITED', {}, 1_500))?.retryAfterMs).toBe(1_500)
  })

  it('say what is wrong with the request, as far as it is no text', () => {
    const metadata = { backendError: 'context_length', backendStatus: '413', param: 'messages[0]', field: 'a secret' }
    const error = grpcError(trailers('BACKEND_REJECTED', metadata))
    expect(error?.metadata).toMatchObject({
      backendError: 'context_length',
      backendStatus: '413',
      param: 'messages[0]',
    })
    expect(error && conditionOf(error)).toBe('context_length')
    const texts = grpcError(
      trailers('BACKEND_REJECTED', { backendError: 'a secret', backendStatus: 'x', param: 'a secret' }),
    )
    expect(JSON.stringify(texts?.metadata)).not.toContain('secret')
  })

  test.each(['busy', 'unavailable'] as const)('whose backends were %s are that', (failure) => {
    expect(failureIn(trailers('BACKEND_FAILED', { failure }))).toBe(failure)
  })
})

describe('trailers of another server', () => {
  test.each<[status: string, failure: Failure | undefined]>([
    ['0', undefined],
    ['1', 'server_error'],
    ['3', 'rejected'],
    ['4', 'gateway_timeout'],
    ['7', 'credential_refused'],
    ['8', 'busy'],
    ['12', 'unusable_status'],
    ['13', 'server_error'],
    ['14', 'unavailable'],
    ['16', 'credential_refused'],
    ['17', 'invalid_answer'],
    ['ok', 'invalid_answer'],
  ])('with status %s are the failure %s', (status, failure) => {
    expect(failureIn({ 'grpc-status': status })).toBe(failure)
  })

  it('of all statuses have a failure', () => {
    for (let code = 1; code <= 16; code += 1)
      expect(failureIn({ 'grpc-status': String(code) })).not.toBe('invalid_answer')
  })

  it('that are not there are a cut', () => {
    expect(failureIn({})).toBe('cut')
  })

  it('with details that cannot be read, or of others, are known by their status', () => {
    const foreign = create(StatusSchema, {
      code: 8,
      details: [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: 'INTERNAL', domain: 'googleapis.com' }))],
    })
    for (const details of ['!!!', '////', Buffer.from(toBinary(StatusSchema, foreign)).toString('base64')]) {
      expect(failureIn({ 'grpc-status': '8', 'grpc-status-details-bin': details })).toBe('busy')
    }
  })
})
