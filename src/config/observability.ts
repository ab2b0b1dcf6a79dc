import type { Mode } from '../config-parsers.ts'
import * as is from '../config-parsers.ts'
import type { SettingsReader } from './settings-reader.ts'
import { optional, setting } from './variable.ts'

/** Logs and traces. */
export const observabilityVariables = {
  logLevel: setting(is.oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'), {
    name: 'LOG_LEVEL',
    group: 'Observability',
    default: 'info',
    devDefault: 'warn',
    description: 'Lowest level that is logged, as JSON lines on standard error.',
  }),
  otlpEndpoint: optional(is.url('http', 'https'), {
    name: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    group: 'Observability',
    description: 'OTLP/HTTP collector; `/v1/traces` is added to it. Without it tracing is off and costs nothing.',
  }),
  serviceName: setting(is.text, {
    name: 'OTEL_SERVICE_NAME',
    group: 'Observability',
    default: 'tollgate',
    description: 'Name of this process in traces.',
  }),
  tracesSampler: setting(
    is.oneOf(
      'parentbased_traceidratio',
      'traceidratio',
      'parentbased_always_on',
      'always_on',
      'parentbased_always_off',
      'always_off',
    ),
    {
      name: 'OTEL_TRACES_SAMPLER',
      group: 'Observability',
      default: 'parentbased_traceidratio',
      description: 'Which traces are recorded.',
    },
  ),
  tracesSamplerArg: setting(is.decimal(0, 1), {
    name: 'OTEL_TRACES_SAMPLER_ARG',
    group: 'Observability',
    default: 1,
    description: 'Share of traces that the ratio samplers record.',
  }),
} as const

export type LogLevel = (typeof observabilityVariables.logLevel.defaults)[Mode]
export type Sampler = (typeof observabilityVariables.tracesSampler.defaults)[Mode]

/** Where traces go, and which. */
export interface TracingSettings {
  readonly endpoint: string
  readonly serviceName: string
  readonly sampler: Sampler
  /** Share of traces that the ratio samplers record, 0 to 1. */
  readonly ratio: number
}

/** Undefined: tracing is off. */
export function readTracing(from: SettingsReader): TracingSettings | undefined {
  const endpoint = from.read(observabilityVariables.otlpEndpoint)
  const serviceName = from.read(observabilityVariables.serviceName)
  const sampler = from.read(observabilityVariables.tracesSampler)
  const ratio = from.read(observabilityVariables.tracesSamplerArg)
  return endpoint === undefined ? undefined : { endpoint, serviceName, sampler, ratio }
}
