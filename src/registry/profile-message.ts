import type { Service } from '../../gen/marketplace/v1/registry_pb.ts'
import {
  type Capabilities as CapabilitiesMessage,
  type Compliance as ComplianceMessage,
  Modality as ModalityMessage,
  type ServiceLevel as ServiceLevelMessage,
} from '../../gen/marketplace/v1/service_profile_pb.ts'
import { classificationMessage, classificationOf } from './classification.ts'
import { durationOf, wholeMs } from './endpoint-message.ts'
import { documentInfoMessage, shownDocumentInfo } from './service-document.ts'
import {
  type Capabilities,
  type Compliance,
  emptyProfile,
  type Modality,
  type ServiceLevel,
  type ServiceProfile,
} from './service-profile.ts'

/** What a service of the contract says of itself. */
export function profileOf(service: Service): ServiceProfile {
  const { category, tags, labels, owner, documentationUrl, serviceLevel, capabilities, compliance } = service
  return {
    category,
    tags,
    labels,
    contact: owner?.contact ?? '',
    documentationUrl,
    level: serviceLevel === undefined ? {} : levelOf(serviceLevel),
    capabilities: capabilities === undefined ? emptyProfile.capabilities : capabilitiesOf(capabilities),
    compliance: compliance === undefined ? emptyProfile.compliance : complianceOf(compliance),
    ...(service.document !== undefined && { document: shownDocumentInfo(service.document) }),
  }
}

/** The fields of a service that hold its profile; a message of which nothing is stated is left out. */
export function profileMessage(profile: ServiceProfile, organizationId: string | undefined) {
  const { category, tags, labels, contact, documentationUrl, level, capabilities, compliance } = profile
  const hasOwner = organizationId !== undefined || contact !== ''
  return {
    category,
    tags: [...tags],
    labels: { ...labels },
    documentationUrl,
    ...(hasOwner && { owner: { organizationId: organizationId ?? '', contact } }),
    ...(Object.keys(level).length > 0 && { serviceLevel: levelMessage(level) }),
    ...(statesAny(capabilities) && { capabilities: capabilitiesMessage(capabilities) }),
    ...(statesAny(compliance) && { compliance: complianceMessage(compliance) }),
    ...(profile.document !== undefined && { document: documentInfoMessage(profile.document) }),
  }
}

function levelOf({ latencyP95, latencyP99, maxErrorRate, minUptime }: ServiceLevelMessage): ServiceLevel {
  const latencyMsP95 = wholeMs(latencyP95)
  const latencyMsP99 = wholeMs(latencyP99)
  return {
    ...(latencyMsP95 !== undefined && { latencyMsP95 }),
    ...(latencyMsP99 !== undefined && { latencyMsP99 }),
    ...(maxErrorRate !== undefined && { maxErrorRate }),
    ...(minUptime !== undefined && { minUptime }),
  }
}

function levelMessage({ latencyMsP95, latencyMsP99, maxErrorRate, minUptime }: ServiceLevel) {
  return {
    latencyP95: durationOf(latencyMsP95),
    latencyP99: durationOf(latencyMsP99),
    ...(maxErrorRate !== undefined && { maxErrorRate }),
    ...(minUptime !== undefined && { minUptime }),
  }
}

function capabilitiesOf(message: CapabilitiesMessage): Capabilities {
  const { streaming, tools, vision, embeddings } = message
  return {
    streaming,
    tools,
    vision,
    embeddings,
    contextWindow: Number(message.contextWindowTokens),
    maxOutput: Number(message.maxOutputTokens),
    inputModalities: modalities.filter((name) => message.inputModalities.includes(modalityValues[name])),
    outputModalities: modalities.filter((name) => message.outputModalities.includes(modalityValues[name])),
  }
}

function capabilitiesMessage(capabilities: Capabilities) {
  const { contextWindow, maxOutput, inputModalities, outputModalities, ...abilities } = capabilities
  return {
    ...abilities,
    contextWindowTokens: BigInt(contextWindow),
    maxOutputTokens: BigInt(maxOutput),
    inputModalities: inputModalities.map((name) => modalityValues[name]),
    outputModalities: outputModalities.map((name) => modalityValues[name]),
  }
}

const modalities = ['text', 'image', 'audio', 'video'] as const

const modalityValues: Readonly<Record<Modality, ModalityMessage>> = {
  text: ModalityMessage.TEXT,
  image: ModalityMessage.IMAGE,
  audio: ModalityMessage.AUDIO,
  video: ModalityMessage.VIDEO,
}

function complianceOf({ dataClassification, certifications, regions, retentionDays }: ComplianceMessage): Compliance {
  const classification = classificationOf(dataClassification)
  return {
    ...(classification !== undefined && { classification }),
    certifications,
    regions,
    ...(retentionDays !== undefined && { retentionDays }),
  }
}

function complianceMessage({ classification, certifications, regions, retentionDays }: Compliance) {
  return {
    dataClassification: classificationMessage(classification),
    certifications: [...certifications],
    regions: [...regions],
    ...(retentionDays !== undefined && { retentionDays }),
  }
}

/** Zero is stated only where a field can be left out. */
function statesAny(part: Capabilities | Compliance): boolean {
  return Object.entries(part).some(([name, value]) => {
    return Array.isArray(value) ? value.length > 0 : name === 'retentionDays' || Boolean(value)
  })
}
