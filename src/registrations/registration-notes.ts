import type { StatedLife } from '../registry/lifecycle-steps.ts'

/** What a registration says of where it comes from; it is kept in labels of its service, and shown in its own words again. */
export interface RegistrationNotes {
  /** Who provides it, where that is no organization of this registry; empty: nothing is said. So with all of them. */
  readonly providerId: string
  /** Which installation registered it, what it is called there, and which state of it was told last. */
  readonly source: string
  readonly serviceId: string
  readonly revision: string
  /** The status that was told last. */
  readonly status: StatedLife['status'] | ''
}

const prefix = 'registration.'
const names = {
  providerId: `${prefix}provider_id`,
  source: `${prefix}source`,
  serviceId: `${prefix}service_id`,
  revision: `${prefix}revision`,
  status: `${prefix}status`,
} as const satisfies Record<keyof RegistrationNotes, string>

type Labels = Readonly<Record<string, string>>

/** The notes that the labels of a service hold. */
export function notesOf(labels: Labels): RegistrationNotes {
  const of = (note: keyof typeof names): string => labels[names[note]] ?? ''
  const status = statuses.find((name) => name === of('status')) ?? ''
  return {
    providerId: of('providerId'),
    source: of('source'),
    serviceId: of('serviceId'),
    revision: of('revision'),
    status,
  }
}

/** Labels with notes, and without. */
export const noteLabels = {
  with(labels: Labels, notes: RegistrationNotes): Record<string, string> {
    const { providerId, source, serviceId, revision, status } = notes
    const all: readonly (readonly [name: string, value: string])[] = [
      [names.providerId, providerId],
      [names.source, source],
      [names.serviceId, serviceId],
      [names.revision, revision],
      [names.status, status],
    ]
    return { ...noteLabels.without(labels), ...Object.fromEntries(all.filter(([, value]) => value !== '')) }
  },
  without(labels: Labels): Record<string, string> {
    return Object.fromEntries(Object.entries(labels).filter(([name]) => !name.startsWith(prefix)))
  },
}

const statuses = ['pending_approval', 'active', 'deprecated', 'suspended', 'retired'] as const
