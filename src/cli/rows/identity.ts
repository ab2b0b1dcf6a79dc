import type { JsonObject } from '@bufbuild/protobuf'
import { ConsumerService, ConsumerStatus, OrganizationStatus } from '../../../gen/marketplace/v1/consumers_pb.ts'
import { KeyService } from '../../../gen/marketplace/v1/keys_pb.ts'
import { ProjectService, ProjectStatus } from '../../../gen/marketplace/v1/projects_pb.ts'
import { UserService, UserStatus } from '../../../gen/marketplace/v1/users_pb.ts'
import { isObject } from '../../is-object.ts'
import type { CommandRow } from '../command-row.ts'

const consumers = ConsumerService.method
const keys = KeyService.method
const projects = ProjectService.method
const users = UserService.method

/** Who pays, who calls, and how they are known. */
export const identityRows: readonly CommandRow[] = [
  {
    name: 'orgs create',
    summary: 'add an organization',
    method: consumers.createOrganization,
    resource: 'organization',
    positional: ['organization.name'],
  },
  { name: 'orgs get', summary: 'show an organization', method: consumers.getOrganization, positional: ['id'] },
  {
    name: 'orgs list',
    summary: 'list organizations',
    method: consumers.listOrganizations,
    rows: { field: 'organizations', columns: ['id', 'name', 'status', 'clearance', 'homeRegion'] },
  },
  {
    name: 'orgs update',
    summary: 'change an organization; what is not named stays',
    method: consumers.updateOrganization,
    resource: 'organization',
    positional: ['organization.id'],
    warning: closing(
      'organization',
      OrganizationStatus.CLOSED,
      'Calls of this organization are refused from now on, and it cannot be opened again.',
    ),
  },
  {
    name: 'projects create',
    summary: 'add a project to an organization',
    method: projects.createProject,
    resource: 'project',
    positional: ['project.name'],
  },
  { name: 'projects get', summary: 'show a project', method: projects.getProject, positional: ['id'] },
  {
    name: 'projects list',
    summary: 'list projects',
    method: projects.listProjects,
    rows: { field: 'projects', columns: ['id', 'name', 'organizationId', 'status'] },
  },
  {
    name: 'projects update',
    summary: 'change a project; what is not named stays',
    method: projects.updateProject,
    resource: 'project',
    positional: ['project.id'],
    warning: closing(
      'project',
      ProjectStatus.CLOSED,
      'Calls for the consumers of this project are refused from now on, and it cannot be opened again.',
    ),
  },
  {
    name: 'users create',
    summary: 'add a user, whom an issuer of tokens or certificates vouches for',
    method: users.createUser,
    resource: 'user',
  },
  { name: 'users get', summary: 'show a user', method: users.getUser, positional: ['id'] },
  {
    name: 'users list',
    summary: 'list users',
    method: users.listUsers,
    rows: { field: 'users', columns: ['id', 'issuer', 'subject', 'organizationId', 'status', 'roles'] },
  },
  {
    name: 'users update',
    summary: 'change a user; what is not named stays',
    method: users.updateUser,
    resource: 'user',
    positional: ['user.id'],
    warning: closing(
      'user',
      UserStatus.CLOSED,
      'This user is refused from now on, and cannot come back under this issuer and subject.',
    ),
  },
  {
    name: 'consumers create',
    summary: 'add a consumer to an organization',
    method: consumers.createConsumer,
    resource: 'consumer',
    positional: ['consumer.name'],
  },
  { name: 'consumers get', summary: 'show a consumer', method: consumers.getConsumer, positional: ['id'] },
  {
    name: 'consumers list',
    summary: 'list consumers',
    method: consumers.listConsumers,
    rows: { field: 'consumers', columns: ['id', 'name', 'organizationId', 'tier', 'status'] },
  },
  {
    name: 'consumers update',
    summary: 'change a consumer; what is not named stays',
    method: consumers.updateConsumer,
    resource: 'consumer',
    positional: ['consumer.id'],
    warning: closing(
      'consumer',
      ConsumerStatus.CLOSED,
      'Calls of this consumer are refused from now on, and it cannot be opened again.',
    ),
  },
  {
    name: 'keys create',
    summary: 'make an API key; its secret is shown once',
    method: keys.createKey,
    afterword: 'Keep the key now: it cannot be shown again.',
  },
  {
    name: 'keys list',
    summary: 'list the keys of a consumer',
    method: keys.listKeys,
    rows: { field: 'apiKeys', columns: ['id', 'name', 'consumerId', 'createTime', 'expireTime', 'revokeTime'] },
  },
  {
    name: 'keys revoke',
    summary: 'end a key for good',
    method: keys.revokeKey,
    positional: ['key_id'],
    warning: 'Calls with this key are refused from now on, and it cannot be brought back.',
  },
  { name: 'keys get', summary: 'show a key', method: keys.getKey, positional: ['key_id'] },
  {
    name: 'keys update',
    summary: 'change a key; what is not named stays',
    method: keys.updateKey,
    resource: 'api_key',
    positional: ['api_key.id'],
  },
  {
    name: 'keys rotate',
    summary: 'make a key in the place of another one; both work for the overlap',
    method: keys.rotateKey,
    positional: ['key_id'],
    warning: 'The old key ends when the overlap is over: at once, unless one is named.',
    afterword: 'Keep the new key now: it cannot be shown again.',
  },
]

/** The warning of an update that closes its resource, by the name of the status or its number. */
function closing(resource: string, closed: number, warning: string): (request: JsonObject) => string | undefined {
  return (request) => {
    const wanted = request[resource]
    if (!isObject(wanted)) return undefined
    return wanted.status === closed || String(wanted.status).endsWith('_STATUS_CLOSED') ? warning : undefined
  }
}
