import type { DataClassification } from './classification.ts'
import type { DocumentInfo } from './service-document.ts'

/** What a service says of itself. The gate hands it on and lets policies read it; it refuses nothing by it. */
export interface ServiceProfile {
  /** Empty: none. */
  readonly category: string
  readonly tags: readonly string[]
  readonly labels: Readonly<Record<string, string>>
  /** Where the people who answer for it are reached. */
  readonly contact: string
  readonly documentationUrl: string
  readonly level: ServiceLevel
  readonly capabilities: Capabilities
  readonly compliance: Compliance
  /** Set by a way of its own; left out: it has none. */
  readonly document?: DocumentInfo
}

/** What is promised; what is left out is not. */
export interface ServiceLevel {
  readonly latencyMsP95?: number
  readonly latencyMsP99?: number
  /** Shares, from 0 to 1. */
  readonly maxErrorRate?: number
  readonly minUptime?: number
}

export interface Capabilities {
  readonly streaming: boolean
  readonly tools: boolean
  readonly vision: boolean
  readonly embeddings: boolean
  /** Tokens; 0 is not stated. */
  readonly contextWindow: number
  readonly maxOutput: number
  readonly inputModalities: readonly Modality[]
  readonly outputModalities: readonly Modality[]
}

export type Modality = 'text' | 'image' | 'audio' | 'video'

export interface Compliance {
  /** Highest level of data that it may receive; left out: nothing is stated. */
  readonly classification?: DataClassification
  readonly certifications: readonly string[]
  /** Where data is processed and kept. */
  readonly regions: readonly string[]
  /** Days for which the backend keeps prompts and answers; left out: nothing is stated. */
  readonly retentionDays?: number
}

/** Of a service that says nothing. */
export const emptyProfile: ServiceProfile = {
  category: '',
  tags: [],
  labels: {},
  contact: '',
  documentationUrl: '',
  level: {},
  capabilities: {
    streaming: false,
    tools: false,
    vision: false,
    embeddings: false,
    contextWindow: 0,
    maxOutput: 0,
    inputModalities: [],
    outputModalities: [],
  },
  compliance: { certifications: [], regions: [] },
}
