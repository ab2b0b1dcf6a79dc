import { Code, ConnectError, createClient } from '@connectrpc/connect'
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { Agent, request } from 'undici'
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../gen/grpc/health/v1/health_pb.ts'
import type { HealthCheck } from '../registry/health-check.ts'

/** Asks an endpoint once; resolves with what is wrong with it, or undefined. Never rejects. */
export type ProbeEndpoint = (url: string, check: HealthCheck, signal: AbortSignal) => Promise<string | undefined>

/** An answer that is longer than this is cut off; it says nothing more. */
const bodyMaxBytes = 65_536

/**
 * Each check has a connection of its own, as a new caller would: that an old one still lives says little of a host that takes
 * no new ones. No credential is sent, and no redirect is followed.
 */
export const probeEndpoint: ProbeEndpoint = async (url, check, signal) => {
  const { origin } = new URL(url)
  const ending = AbortSignal.any([signal, AbortSignal.timeout(check.timeoutMs)])
  try {
    return check.probe.kind === 'grpc'
      ? await probeGrpc(origin, check.probe.service, ending)
      : await probeHttp(new URL(check.probe.path, origin), ending)
  } catch (error) {
    return ending.aborted ? `no answer within ${check.timeoutMs} ms` : failureText(error)
  }
}

async function probeHttp(url: URL, signal: AbortSignal): Promise<string | undefined> {
  const dispatcher = new Agent({ pipelining: 0 })
  try {
    const { statusCode, body } = await request(url, { dispatcher, signal })
    await body.dump({ limit: bodyMaxBytes, signal })
    return statusCode >= 200 && statusCode < 300 ? undefined : `status ${statusCode}`
  } finally {
    await dispatcher.destroy()
  }
}

async function probeGrpc(origin: string, service: string, signal: AbortSignal): Promise<string | undefined> {
  const sessionManager = new Http2SessionManager(origin)
  try {
    const client = createClient(Health, createGrpcTransport({ baseUrl: origin, sessionManager }))
    const { status } = await client.check({ service }, { signal })
    return status === Status.SERVING ? undefined : 'it is not serving'
  } finally {
    sessionManager.abort()
  }
}

/** Codes and names only: texts of a backend may hold anything. */
function failureText(error: unknown): string {
  if (error instanceof ConnectError) return `gRPC status ${Code[error.code]}`
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : 'no connection'
}
