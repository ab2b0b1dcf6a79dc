import * as is from '../config-parsers.ts'
import type { SettingsReader } from './settings-reader.ts'
import { optional, setting } from './variable.ts'

/** What others are told. */
export const eventVariables = {
  kafkaBrokers: optional(is.brokers, {
    name: 'KAFKA_BROKERS',
    group: 'Events',
    description: 'Kafka that events go to. Without it a quota that passes 80 or 100 % is a line in the log.',
  }),
  kafkaTopic: setting(is.kafkaName, {
    name: 'KAFKA_TOPIC',
    group: 'Events',
    default: 'marketplace.consumption.events',
    description: 'Topic of the events. It is created with the defaults of the brokers, if these allow it.',
  }),
  kafkaClientId: setting(is.kafkaName, {
    name: 'KAFKA_CLIENT_ID',
    group: 'Events',
    default: 'tollgate',
    description: 'Name of this process in logs and quotas of the brokers.',
  }),
  eventsWebhookUrl: optional(is.url('http', 'https'), {
    name: 'EVENTS_WEBHOOK_URL',
    group: 'Events',
    description: 'Where every change of the control plane is posted to, as a signed CloudEvent.',
  }),
  eventsWebhookSecret: optional(is.webhookSecret, {
    name: 'EVENTS_WEBHOOK_SECRET',
    group: 'Events',
    secret: true,
    description: 'Signs what is posted to EVENTS_WEBHOOK_URL, as Standard Webhooks do.',
  }),
  eventsFile: optional(is.path, {
    name: 'EVENTS_FILE',
    group: 'Events',
    description: 'File that every change of the control plane is appended to, a line each.',
  }),
  eventsKafkaTopic: optional(is.kafkaName, {
    name: 'EVENTS_KAFKA_TOPIC',
    group: 'Events',
    description: 'Topic of KAFKA_BROKERS that every change of the control plane is sent to.',
  }),
  eventsGiveUpHours: setting(is.integer(1, 720), {
    name: 'EVENTS_GIVE_UP_HOURS',
    group: 'Events',
    default: 72,
    description: 'A change that a sink does not take is a dead letter after this long.',
  }),
  eventsSource: setting(is.text, {
    name: 'EVENTS_SOURCE',
    group: 'Events',
    default: '/tollgate',
    description: '`source` of the events of the control plane, a URI reference: names this installation among others.',
  }),
} as const

/** Where events go. */
export interface EventSettings {
  /** Undefined: only thresholds of quotas, as lines of the log. */
  readonly kafka: { readonly brokers: readonly string[]; readonly topic: string; readonly clientId: string } | undefined
  /** What changes of the control plane are told to. */
  readonly outbox: {
    readonly webhook: { readonly url: string; readonly secret: string } | undefined
    readonly file: string | undefined
    readonly kafkaTopic: string | undefined
    readonly giveUpMs: number
    readonly source: string
  }
}

/** Refuses halves of what only works together. */
export function readEvents(from: SettingsReader): EventSettings {
  const brokers = from.read(eventVariables.kafkaBrokers)
  const topic = from.read(eventVariables.kafkaTopic)
  const clientId = from.read(eventVariables.kafkaClientId)
  const outbox = {
    webhook: readWebhook(from),
    file: from.read(eventVariables.eventsFile),
    kafkaTopic: from.read(eventVariables.eventsKafkaTopic),
    giveUpMs: from.read(eventVariables.eventsGiveUpHours) * 3_600_000,
    source: from.read(eventVariables.eventsSource),
  }
  if (outbox.kafkaTopic !== undefined && brokers === undefined)
    from.refuse(eventVariables.kafkaBrokers, 'is missing while EVENTS_KAFKA_TOPIC is set', 'Set both or none')
  return { kafka: brokers === undefined ? undefined : { brokers, topic, clientId }, outbox }
}

function readWebhook(from: SettingsReader): EventSettings['outbox']['webhook'] {
  const { eventsWebhookUrl, eventsWebhookSecret } = eventVariables
  const url = from.read(eventsWebhookUrl)
  const secret = from.read(eventsWebhookSecret)
  from.needBoth({ variable: eventsWebhookUrl, value: url }, { variable: eventsWebhookSecret, value: secret })
  return url === undefined || secret === undefined ? undefined : { url, secret }
}
