import { createHash } from 'node:crypto'
import { Agent } from 'node:http'
import { type Client, createClient } from '@connectrpc/connect'
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { ConsumptionService, type RouteRequestResponse, UsageSource } from '../../gen/marketplace/v1/consumption_pb.ts'
import { chat } from '../support/payloads.ts'
import type { Tenant } from '../support/tenant.ts'
import type { CallPlan, Wire } from './call-plan.ts'

/** What a caller was told, and keeps as its own book. */
export interface Answer {
  readonly requestId: string
  readonly totalTokens: number
  readonly costNanos: number
  readonly isEstimated: boolean
  /** Of the body. */
  readonly digest: string
  /** The gate says that it gave this answer before. */
  readonly isReplayed: boolean
}

/** A caller of one gateway, on each wire. */
export interface GatewayClient {
  /** Makes one try of a call; throws a ConnectError. */
  call(plan: CallPlan, tenant: Tenant, timeoutMs: number, signal: AbortSignal): Promise<Answer>
  close(): void
}

/** Connects at the first call, and again whenever a connection broke. */
export function createGatewayClient(baseUrl: string): GatewayClient {
  const sessionManager = new Http2SessionManager(baseUrl)
  const agent = new Agent({ keepAlive: true })
  const clients: Record<Wire, Client<typeof ConsumptionService>> = {
    grpc: createClient(ConsumptionService, createGrpcTransport({ baseUrl, sessionManager })),
    'connect-json': createClient(
      ConsumptionService,
      createConnectTransport({ baseUrl, httpVersion: '1.1', nodeOptions: { agent } }),
    ),
  }
  return {
    async call(plan, tenant, timeoutMs, signal) {
      let isReplayed = false
      const request = {
        serviceId: tenant.serviceId,
        payload: chat(plan.content, plan.model, 48),
        metadata: { call: plan.key },
      }
      const answer = await clients[plan.wire].routeRequest(request, {
        timeoutMs,
        signal,
        headers: {
          authorization: `Bearer ${tenant.key}`,
          ...(plan.isKeyed ? { 'idempotency-key': plan.key } : {}),
        },
        onHeader: (headers) => {
          isReplayed = headers.get('idempotent-replayed') === 'true'
        },
      })
      return answerOf(answer, isReplayed)
    },
    close() {
      sessionManager.abort()
      agent.destroy()
    },
  }
}

function answerOf({ requestId, responseData, usage, cost }: RouteRequestResponse, isReplayed: boolean): Answer {
  return {
    requestId,
    totalTokens: Number(usage?.totalTokens ?? 0),
    costNanos: Number(cost?.amountNanos ?? 0),
    isEstimated: usage?.source === UsageSource.ESTIMATED,
    digest: createHash('sha256').update(responseData).digest('base64url'),
    isReplayed,
  }
}
