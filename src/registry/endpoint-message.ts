import type { MessageInitShape } from '@bufbuild/protobuf'
import { type Duration, durationFromMs, durationMs } from '@bufbuild/protobuf/wkt'
import {
  type Endpoint,
  Endpoint_Auth,
  Endpoint_Protocol,
  type EndpointSchema,
} from '../../gen/marketplace/v1/registry_pb.ts'
import type { Protocol } from '../providers/provider.ts'
import type { AuthForm } from '../providers/target.ts'
import { healthCheckMessage, healthCheckOf } from './health-check.ts'
import type { EndpointRecord } from './records.ts'

/** The record of an endpoint to store under `id`, with every default. */
export function endpointRecord(endpoint: Endpoint, id: string): EndpointRecord {
  return {
    id,
    url: endpoint.url,
    // The contract's rules let no undefined number get here.
    protocol: protocolNames[endpoint.protocol] ?? 'openai',
    credentialRef: endpoint.credentialRef,
    weight: endpoint.weight || 1,
    priority: endpoint.priority,
    timeoutMs: wholeMs(endpoint.timeout),
    connectTimeoutMs: wholeMs(endpoint.connectTimeout),
    headersTimeoutMs: wholeMs(endpoint.headersTimeout),
    firstTokenTimeoutMs: wholeMs(endpoint.firstTokenTimeout),
    idleTimeoutMs: wholeMs(endpoint.idleTimeout),
    auth: authNames[endpoint.auth],
    model: endpoint.model,
    healthCheck: endpoint.healthCheck && healthCheckOf(endpoint.healthCheck),
  }
}

/** An endpoint as its callers see it. */
export function endpointMessage(endpoint: EndpointRecord): MessageInitShape<typeof EndpointSchema> {
  return {
    id: endpoint.id,
    url: endpoint.url,
    protocol: protocolValues[endpoint.protocol],
    credentialRef: endpoint.credentialRef,
    weight: endpoint.weight,
    priority: endpoint.priority,
    timeout: durationOf(endpoint.timeoutMs),
    connectTimeout: durationOf(endpoint.connectTimeoutMs),
    headersTimeout: durationOf(endpoint.headersTimeoutMs),
    firstTokenTimeout: durationOf(endpoint.firstTokenTimeoutMs),
    idleTimeout: durationOf(endpoint.idleTimeoutMs),
    auth: endpoint.auth === undefined ? Endpoint_Auth.UNSPECIFIED : authValues[endpoint.auth],
    model: endpoint.model,
    ...(endpoint.healthCheck !== undefined && { healthCheck: healthCheckMessage(endpoint.healthCheck) }),
  }
}

/** The name of a protocol in the contract, as messages to administrators say it. */
export function protocolName(protocol: Protocol): string {
  return `PROTOCOL_${protocol.toUpperCase()}`
}

/** A rule keeps durations above 0; what is below a millisecond counts as one. */
export function wholeMs(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : Math.max(1, Math.round(durationMs(duration)))
}

export function durationOf(ms: number | undefined): Duration | undefined {
  return ms === undefined ? undefined : durationFromMs(ms)
}

const protocolNames: Readonly<Record<Endpoint_Protocol, Protocol>> = {
  [Endpoint_Protocol.UNSPECIFIED]: 'openai',
  [Endpoint_Protocol.OPENAI]: 'openai',
  [Endpoint_Protocol.AZURE_OPENAI]: 'azure_openai',
  [Endpoint_Protocol.ANTHROPIC]: 'anthropic',
  [Endpoint_Protocol.GEMINI]: 'gemini',
  [Endpoint_Protocol.OLLAMA]: 'ollama',
  [Endpoint_Protocol.JSON]: 'json',
  [Endpoint_Protocol.GRPC]: 'grpc',
}

const protocolValues: Readonly<Record<Protocol, Endpoint_Protocol>> = {
  openai: Endpoint_Protocol.OPENAI,
  azure_openai: Endpoint_Protocol.AZURE_OPENAI,
  anthropic: Endpoint_Protocol.ANTHROPIC,
  gemini: Endpoint_Protocol.GEMINI,
  ollama: Endpoint_Protocol.OLLAMA,
  json: Endpoint_Protocol.JSON,
  grpc: Endpoint_Protocol.GRPC,
}

const authNames: Readonly<Record<Endpoint_Auth, AuthForm | undefined>> = {
  [Endpoint_Auth.UNSPECIFIED]: undefined,
  [Endpoint_Auth.BEARER]: 'bearer',
  [Endpoint_Auth.X_API_KEY]: 'x-api-key',
  [Endpoint_Auth.X_GOOG_API_KEY]: 'x-goog-api-key',
  [Endpoint_Auth.API_KEY]: 'api-key',
}

const authValues: Readonly<Record<AuthForm, Endpoint_Auth>> = {
  bearer: Endpoint_Auth.BEARER,
  'x-api-key': Endpoint_Auth.X_API_KEY,
  'x-goog-api-key': Endpoint_Auth.X_GOOG_API_KEY,
  'api-key': Endpoint_Auth.API_KEY,
}
